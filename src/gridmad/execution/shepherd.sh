# Runs one job and writes down its exit code, whatever becomes of the driver.
#
#   /bin/sh shepherd.sh STATUS_FILE DESCRIPTORS COMMAND [ARGUMENT ...]
#
# STATUS_FILE gets one line: the exit code of COMMAND, 128 + n after signal n.  Only a line
# with its end counts, so that it needs no temporary file: a printf is one write.
# A STATUS_FILE that exists already means that nobody wants this job any more.
# DESCRIPTORS is the soft limit of open files that COMMAND gets; the driver's own is higher.

status=$1
ulimit -S -n "$2"
shift 2
[ -e "$status" ] && exit 0

# Signals to the whole session are for the job.  A trap with an action, unlike an ignored
# signal, is back to its default in COMMAND.
trap : HUP INT QUIT TERM USR1 USR2 ALRM

# What the shell itself says of a killed command ("Terminated") is not the job's output.
# The parentheses make the redirection the command's alone; exec keeps it to one process.
exec 3>&2 2>/dev/null
(exec "$@") 2>&3 3>&-
code=$?

umask 077
printf '%d\n' "$code" >"$status"
exit "$code"
