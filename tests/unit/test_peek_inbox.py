"""The bounded queue between connections and the thread that writes."""

import threading
import time

from gridmad.peek.inbox import BATCH, ITEM_COST, Inbox


def test_items_come_in_order_and_in_batches() -> None:
    inbox: Inbox[int] = Inbox(10 * BATCH)
    for number in range(8):
        inbox.put(number, BATCH // 4)
    inbox.put_now(8)
    taken = inbox.take(None)
    assert 3 <= len(taken) <= 4
    while not inbox.is_empty:
        taken += inbox.take(None)
    assert taken == list(range(9))


def test_who_adds_too_much_waits_until_there_is_room() -> None:
    inbox: Inbox[int] = Inbox(3 * BATCH)

    def produce() -> None:
        for number in range(20):
            inbox.put(number, BATCH)

    producer = threading.Thread(target=produce)
    producer.start()
    time.sleep(0.1)
    assert producer.is_alive()
    inbox.put_now(-1)
    taken: list[int] = []
    while len(taken) < 21:
        batch = inbox.take(10)
        assert sum(BATCH + ITEM_COST for number in batch if number >= 0) <= 2 * BATCH
        taken += batch
    producer.join()
    assert [number for number in taken if number >= 0] == list(range(20))
    assert taken.index(-1) <= 4


def test_an_item_larger_than_the_whole_queue_passes() -> None:
    inbox: Inbox[str] = Inbox(10)
    inbox.put("large", 1000)
    assert inbox.take(0) == ["large"]


def test_nothing_comes_in_time() -> None:
    inbox: Inbox[int] = Inbox(BATCH)
    assert inbox.take(0.01) == []


def test_the_end_wakes_all_and_drops_what_is_left() -> None:
    inbox: Inbox[int] = Inbox(1)
    inbox.put(1, 1)
    waiting = [
        threading.Thread(target=inbox.put, args=(2, 1)),
        threading.Thread(target=inbox.put, args=(3, 1)),
    ]
    for thread in waiting:
        thread.start()
    time.sleep(0.05)
    assert all(thread.is_alive() for thread in waiting)
    inbox.close()
    for thread in waiting:
        thread.join(10)
        assert not thread.is_alive()
    inbox.put_now(4)
    assert inbox.take(None) == []
