#!/usr/bin/env bash
# Copy a folder to where the copies are kept.
set -euo pipefail

readonly KEEP=7
target=${TARGET:-/var/backups}

# Say something with the time of day.
log() {
    local level=$1
    shift
    printf '%s [%s] %s\n' "$(date +%H:%M:%S)" "$level" "$*" >&2
    if [[ $level == error && -n ${MAIL_TO:-} ]]; then
        mail -s "backup of $(hostname)" "$MAIL_TO" <<<"$*"
    fi
}

function rotate {
    local -a copies
    mapfile -t copies < <(ls -1t "$target"/*.tar.gz 2>/dev/null)
    for copy in "${copies[@]:$KEEP}"; do
        log info "removing $copy, which is older than the last $KEEP copies"
        rm -- "$copy"
    done
}

copy() (
    cd "$1"
    name=$(basename "$PWD")-$(date +%F).tar.gz
    tar --exclude-vcs -czf "$target/$name" . || { log error "could not copy $1"; exit 1; }
    log info "wrote $target/$name, $(stat -c %s "$target/$name") bytes"
)

for folder in "$@"; do
    copy "$folder"
done
rotate
