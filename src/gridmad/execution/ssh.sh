# What the ssh driver does on a host: runs jobs there, tells their states, ends and forbids them.
#
# A host keeps it as ~/.gridmad/helper-VERSION.  The driver lets a shell in ~/.gridmad/jobs read it
# and then calls functions of it; what goes on without a connection runs as
#
#   /bin/sh ../helper-VERSION shepherd TAG UMASK     a job, until its end is written down
#   /bin/sh ../helper-VERSION finish GRACE TAG ...   the end of jobs that were cancelled
#   /bin/sh ../helper-VERSION sweep DAYS             the files of jobs that ended long ago
#
# The files of a job:
#
#   TAG          the job, a script for /bin/sh.  Who makes this file decides what becomes of the
#                tag: it is started once or, where find_jobs made it, never.
#   TAG.run      the identity of its shepherd: NODE BOOT_ID PID START_TIME
#   TAG.cancel   the identity of who is ending it
#   TAG.status   a line: its exit code, or why it has none
#
# Files that drivers bring for jobs are in ~/.gridmad/files, named by their SHA-256; a job gets
# copies.
#
# `events` gets a line as a job begins and as it ends, for those who watch it with tail.
# An answer is a line `TAG WORD [MORE]`; of what is not known there is none.
#
# It needs Linux (/proc), setsid (util-linux), and awk, find, grep, mktemp and tail.

set -C # `>` makes a file or fails, wherever `>|` does not say otherwise

# ---------------------------------------------------------------- processes

# awk reads a file at once, a shell byte by byte.
processes='
function first_line(file,    line) {
    line = ""
    getline line <file
    close(file)
    return line
}

# A process: sets state, session and began; false where there is none.
function look_at(pid,    stat, fields) {
    stat = first_line("/proc/" pid "/stat")
    # Its name, in parentheses, may hold blanks and parentheses.
    sub(/^.*\) /, "", stat)
    split(stat, fields, " ")
    state = fields[1]
    session = fields[4]
    began = fields[20]
    return stat != ""
}

# Whether the process of an identity runs here; sets node, boot and pid to what it says.
function is_alive(identity,    fields) {
    split(identity, fields, " ")
    node = fields[1]
    boot = fields[2]
    pid = fields[3]
    return boot == here["boot"] && pid ~ /^[0-9]+$/ && look_at(pid) &&
        began == fields[4] && state != "Z"
}

function is_elsewhere() {
    return boot != "" && boot != here["boot"] && node != here["node"]
}

BEGIN {
    here["node"] = first_line("/proc/sys/kernel/hostname")
    here["boot"] = first_line("/proc/sys/kernel/random/boot_id")
}
'

# The identity of this process.
identity() {
    read -r node </proc/sys/kernel/hostname
    read -r boot </proc/sys/kernel/random/boot_id
    read -r stat <"/proc/$$/stat"
    set -- ${stat##*) }
    echo "$node $boot $$ ${20}"
}

# Whether the process runs whose identity is in a file.
runs() { # FILE
    [ -e "$1" ] && awk "$processes"'BEGIN { exit !is_alive(first_line(ARGV[1])) }' "$1"
}

# What runs of jobs: `TAG:PID` for each process in the session of a living shepherd, or with a job's
# mark in its environment, and `TAG:shepherd:PID`.
members() { # TAG ...
    {
        printf 'tag %s\n' "$@"
        printf '%s\n' /proc/[0-9]*
        grep -Hsaz '^GRIDMAD_JOB=' /proc/[0-9]*/environ | tr '\0' '\n'
    } | awk "$processes"'
        function belongs(pid, tag) {
            if (tag != "" && !(pid in known) && state != "Z")
                print tag ":" pid
            known[pid] = 1
        }
        /^tag / {
            wanted[$2] = 1
            if (is_alive(first_line($2 ".run"))) {
                jobs[pid] = $2
                known[pid] = 1
                print $2 ":shepherd:" pid
            }
        }
        /^\/proc\/[0-9]+$/ {
            pid = substr($0, 7)
            if (look_at(pid) && (session in jobs))
                belongs(pid, jobs[session])
        }
        /^\/proc\/[0-9]+\/environ:GRIDMAD_JOB=/ {
            split($0, fields, /[\/:=]/)
            if ((fields[6] in wanted) && look_at(fields[3]))
                belongs(fields[3], fields[6])
        }'
}

# ---------------------------------------------------------------- a job

# The status of a job: sets status.  It fails where there is none yet.
has_ended() { # TAG
    { read -r status <"$1.status"; } 2>/dev/null
}

# Writes a status where there is none.  A full disk may delay that but not prevent it.
end() { # TAG STATUS
    until has_ended "$1" || printf '%s\n' "$2" >|"$1.status"; do
        sleep 10
    done 2>/dev/null
    has_ended "$1"
    printf '%s ended %s\n' "$1" "$status" >>events
}

shepherd() { # TAG UMASK
    identity >|"$1.run" || exit
    # Who looks for TAG.run after writing a status, and this, which does the reverse, cannot
    # both miss the other.
    [ ! -e "$1.status" ] || exit
    printf '%s running\n' "$1" >>events
    unset SSH_CLIENT SSH_CONNECTION SSH_TTY SSH_AUTH_SOCK SSH_ORIGINAL_COMMAND OLDPWD
    export GRIDMAD_JOB="$1"
    # Signals to the whole session are for the job.  A trap with an action, unlike an ignored
    # signal, is back to its default in the job.
    trap : HUP INT QUIT TERM USR1 USR2 ALRM
    (umask "$2" && exec /bin/sh "./$1")
    code=$?
    # Who ends it tells the end when nothing of the job is left.
    runs "$1.cancel" || end "$1" "$code"
}

uptime() {
    read -r seconds rest </proc/uptime
    seconds=${seconds%.*}
}

finish() { # GRACE TAG ...
    uptime
    kill_at=$((seconds + $1))
    shift
    me=$(identity)
    for tag; do
        echo "$me" >|"$tag.cancel"
    done
    told=
    while [ $# -gt 0 ]; do
        uptime
        signal=TERM
        if [ "$seconds" -ge "$kill_at" ]; then
            signal=KILL
            told=
        fi
        new=
        left=" "
        shepherds=
        targets=
        for one in $(members "$@"); do
            tag=${one%%:*}
            process=${one##*:}
            left="$left$tag "
            case $one in
            *:shepherd:*) shepherds="$shepherds $process" ;;
            *)
                # TERM comes once, but not to a job that was still about to begin.
                case $told in *" $tag "*) ;; *) targets="$targets $process" ;; esac
                new="$new $tag "
                ;;
            esac
        done
        told="$told$new"
        [ "$seconds" -lt $((kill_at + 5)) ] || targets="$targets $shepherds"
        [ -z "$targets" ] || kill -s "$signal" $targets
        # A stopped process takes a signal when it goes on, and a shepherd sees its job's end.
        [ -z "$targets$shepherds" ] || kill -s CONT $targets $shepherds
        # What does not die hangs in the kernel: nobody should wait for it.
        [ "$seconds" -lt $((kill_at + 30)) ] || left=
        waiting=
        for tag; do
            case $left in
            *" $tag "*) waiting="$waiting $tag" ;;
            *)
                end "$tag" 143
                # See shepherd.
                [ -z "$left" ] || ! runs "$tag.run" || waiting="$waiting $tag"
                ;;
            esac
        done
        set -- $waiting
        [ $# = 0 ] || sleep 0.2 || sleep 1
    done 2>/dev/null
}

sweep() { # DAYS
    find . -name '*.status' -mtime "+$1" | while read -r file; do
        file=${file%.status}
        rm -f "$file" "$file".*
    done
    find ../files -type f -mtime "+$1" -exec rm -f {} +
    [ -z "$(find events -size +2000)" ] || true >|events
}

# ---------------------------------------------------------------- what the driver calls

# Sweeps once a day.
keep() { # DAYS
    if [ -z "$(find swept -mtime -1 2>/dev/null)" ]; then
        echo >|swept
        setsid -f /bin/sh "$helper" sweep "$1" </dev/null >/dev/null 2>&1
    fi
}

# Tells which of these files are here; those that are in use are not swept.
find_files() { # DIGEST ...
    for digest; do
        if [ -f "../files/$digest" ]; then
            touch -c "../files/$digest"
            printf '%s here\n' "$digest"
        fi
    done
}

# Takes a file from stdin; one that was cut short does not count.
take_file() { # DIGEST SIZE
    part=$(mktemp ../files/part-XXXXXXXX) || return
    if cat >|"$part" && [ "$(wc -c <"$part")" -eq "$2" ] && mv -f "$part" "../files/$1"; then
        printf '%s here\n' "$1"
    else
        rm -f "$part"
    fi
}

# Whether find_jobs made its file.
is_forbidden() { # TAG
    # Who makes it shows a moment later which it is.
    for attempt in 1 2 3 4 5 6 7 8 9 10; do
        if [ -s "$1" ] || [ -e "$1.status" ]; then
            break
        fi
        sleep 0.1 || sleep 1
    done 2>/dev/null
    [ ! -s "$1" ] && [ -e "$1.status" ]
}

start() { # TAG JOB
    if ! { true >"$1"; } 2>/dev/null; then
        if [ ! -e "$1" ]; then
            printf '%s unwritable\n' "$1"
        elif is_forbidden "$1"; then
            printf '%s forbidden\n' "$1"
        else
            printf '%s started\n' "$1"
        fi
    elif ! { printf '%s' "$2" >>"$1"; } 2>/dev/null; then
        rm -f "$1"
        printf '%s unwritable\n' "$1"
    elif ! setsid -f /bin/sh "$helper" shepherd "$1" "$mask" </dev/null >/dev/null 2>&1; then
        rm -f "$1"
        printf '%s unstarted\n' "$1"
    else
        printf '%s started\n' "$1"
    fi
}

query() { # TAG ...
    states=$(printf '%s\n' "$@" | awk "$processes"'
        # Whether its first process, or the first child of that, is stopped.
        function is_stopped(pid,    depth) {
            for (depth = 0; depth < 2; depth++) {
                pid = first_line("/proc/" pid "/task/" pid "/children") + 0
                if (!pid || !look_at(pid))
                    return 0
                if (state == "T")
                    return 1
            }
            return 0
        }
        function tell(tag,    status, identity) {
            if ((status = first_line(tag ".status")) != "")
                return "ended " status
            if ((identity = first_line(tag ".run")) == "")
                return (getline status <tag) < 0 ? "" : "begun"
            if (is_alive(identity))
                return is_stopped(pid) ? "stopped" : "running"
            if (is_elsewhere())
                return "elsewhere " node
            if (is_alive(first_line(tag ".cancel")))
                return "running"
            # It may have ended just now.
            if ((status = first_line(tag ".status")) != "")
                return "ended " status
            return "lost"
        }
        {
            told = tell($1)
            close($1)
            if (told != "")
                print $1, told
        }')
    begun= lost=
    case $states in
    *" begun"* | *" lost"*)
        begun=$(printf '%s\n' "$states" | sed -n 's/ begun$//p')
        lost=$(printf '%s\n' "$states" | sed -n 's/ lost$//p')
        ;;
    esac
    printf '%s\n' "$states" | grep -v -e ' begun$' -e ' lost$'
    for tag in $begun; do
        if [ -n "$(find "$tag" -mmin +1)" ]; then
            lost="$lost $tag"
        else
            printf '%s starting\n' "$tag"
        fi
    done
    [ -z "$lost" ] || lose $lost
}

# Ends what is left of jobs that lost their shepherd, and then tells that they are lost.
lose() { # TAG ...
    for attempt in 1 2 3 4 5; do
        left=$(members "$@" | sed 's/.*://')
        [ -n "$left" ] || break
        kill -s KILL $left 2>/dev/null
        sleep 0.1 || sleep 1
    done 2>/dev/null
    for tag; do
        if [ -e "$tag.cancel" ]; then
            end "$tag" 143
        elif [ ! -s "$tag.run" ]; then
            end "$tag" "the job was never begun: its start was cut short"
            # See shepherd.
            ! runs "$tag.run" || rm -f "$tag.status"
        elif grep -q -F "$(cat /proc/sys/kernel/random/boot_id)" "$tag.run"; then
            end "$tag" "the job's shepherd vanished without an exit code (it was killed)"
        else
            end "$tag" "the machine was started anew while the job ran"
        fi
        ! has_ended "$tag" || printf '%s ended %s\n' "$tag" "$status"
    done
}

cancel() { # GRACE TAG ...
    grace=$1
    shift
    doomed=$(printf '%s\n' "$@" | awk "$processes"'
        first_line($1 ".status") == "" && (getline line <$1) >= 0 &&
            !is_alive(first_line($1 ".cancel")) {
            if (!is_alive(first_line($1 ".run")) && is_elsewhere())
                print $1 ":" node
            else
                print $1
        }
        { close($1) }')
    set --
    for tag in $doomed; do
        case $tag in
        *:*) printf '%s elsewhere %s\n' "${tag%%:*}" "${tag#*:}" ;;
        *) set -- "$@" "$tag" ;;
        esac
    done
    if [ $# -gt 0 ]; then
        setsid -f /bin/sh "$helper" finish "$grace" "$@" </dev/null >/dev/null 2>&1 ||
            printf '%s unstarted\n' "$@"
    fi
}

# Tells which jobs there are, and sees to it that the others cannot be started any more.
find_jobs() { # TAG ...
    for tag; do
        if { true >"$tag"; } 2>/dev/null; then
            { printf '143\n' >"$tag.status"; } 2>/dev/null
        elif [ ! -e "$tag" ]; then
            printf '%s unwritable\n' "$tag"
        elif ! is_forbidden "$tag"; then
            printf '%s found\n' "$tag"
        fi
    done
}

# Ends what still submits groups of jobs of these names: it has one as the end of a word.
end_tools() { # NAME ...
    for name; do
        for file in $(grep -lsz -- "$name\$" /proc/[0-9]*/cmdline); do
            process=${file#/proc/}
            kill -s KILL "${process%/*}" 2>/dev/null
        done
    done
}

case ${1-} in
shepherd | finish | sweep)
    helper=$0
    "$@"
    ;;
esac
