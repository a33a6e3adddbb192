"""What a driver looks like when it is written without thinking of speed.

A readline/print loop for one static host that formats the attributes of each answer: the
baseline of the daemon's benchmarks.
"""

import sys

HOST: dict[str, int | str] = {
    "HOSTNAME": "gn0.hpcc.sztaki.hu",
    "ARCH": "i686",
    "NODECOUNT": 16,
    "LRMS_NAME": "jobmanager-lcgpbs",
    "LRMS_TYPE": "torque",
    "OS_NAME": "ScientificSL",
    "OS_VERSION": "Beryllium",
    "CPU_MODEL": "PentiumD",
    "CPU_MHZ": 3000,
    "CPU_SMP": 2,
    "FREE_MEM_MB": 1024,
    "SIZE_MEM_MB": 1024,
}
QUEUE: dict[str, int | str] = {
    "QUEUE_NAME": "gilda",
    "QUEUE_NODECOUNT": 16,
    "QUEUE_FREENODECOUNT": 16,
    "QUEUE_MAXTIME": 4320,
    "QUEUE_MAXCPUTIME": 2880,
    "QUEUE_MAXJOBSINQUEUE": 999999999,
    "QUEUE_MAXRUNNINGJOBS": 999999999,
    "QUEUE_STATUS": "Production",
    "QUEUE_DISPATCHTYPE": "batch",
    "QUEUE_PRIORITY": "1",
    "QUEUE_JOBWAIT": "0",
    "QUEUE_ACCESS": ":gilda:",
}


def attributes() -> str:
    """The host's attributes as one text."""
    host = " ".join([f'{n}="{v}"' if isinstance(v, str) else f"{n}={v}" for n, v in HOST.items()])
    queue = " ".join(
        [f'{n}[0]="{v}"' if isinstance(v, str) else f"{n}[0]={v}" for n, v in QUEUE.items()]
    )
    return f"{host} {queue}"


def main() -> None:
    """Answer until FINALIZE."""
    for line in sys.stdin:
        fields = line.split()
        if fields[0] == "MONITOR":
            print("MONITOR", fields[1], "SUCCESS", attributes(), flush=True)
        elif fields[0] == "INIT":
            print("INIT - SUCCESS -", flush=True)
        elif fields[0] == "FINALIZE":
            return


if __name__ == "__main__":
    main()
