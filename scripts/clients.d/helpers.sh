# What steps are made of. A step runs under `set -euo pipefail -x`; its first
# failing command fails it, and these say why.

fail() { echo "$*" >"$WORLD/reason"; echo "FAILED: $*" >&2; exit 1; }
skip() { echo "$*" >"$WORLD/reason"; exit 77; }
# The client itself cannot, whatever the driver; the step has just shown that.
known() { echo "$*" >"$WORLD/reason"; exit 78; }

same() { # WHAT GOT WANTED
    [ "$2" = "$3" ] || fail "$1: got '$2', wanted '$3'"
}
has() { # WHAT TEXT PART
    case $2 in *"$3"*) ;; *) fail "$1: '$2' has no '$3'" ;; esac
}
has_not() { # WHAT TEXT PART
    case $2 in *"$3"*) fail "$1: '$2' has '$3'" ;; esac
}
must_fail() { if "$@"; then fail "should have failed: $*"; fi; }

# Waits until a command succeeds.
until_true() { # SECONDS COMMAND...
    local end=$((SECONDS + $1)); shift
    until "$@"; do
        [ $SECONDS -lt $end ] || fail "not in time: $*"
        sleep 0.1
    done
}

# As the root that the stores' files belong to.
as_container_root() {
    if [ "$MODE" = root ]; then "$@"; else podman unshare "$@"; fi
}

# Compares a tree's listing with the one that vfs left under the same name.
compare_list() { # NAME FILE
    local wanted=$T/lists/$MODE.$1
    if [ -n "${LIST_FILTER:-}" ]; then sed -E -i "$LIST_FILTER" "$2"; fi
    if [ "$DRIVER" = vfs ]; then cp "$2" "$wanted"; return; fi
    [ -e "$wanted" ] || fail "vfs left no listing $1 to compare with"
    diff -u0 --label vfs --label "$DRIVER" "$wanted" "$2" ||
        fail "$1: the listing differs from vfs's in $(diff "$wanted" "$2" | grep -c '^[<>]') lines"
}
image_list() { # NAME IMAGE
    as_container_root sh -c 'd=$(podman image mount "$1") && tree "$d" && podman image umount "$1" >&2' - "$2" >"$1.list"
    compare_list "$1" "$1.list"
}
container_list() { # NAME CONTAINER
    as_container_root sh -c 'd=$(podman mount "$1") && tree "$d" && podman umount "$1" >&2' - "$2" >"$1.list"
    compare_list "$1" "$1.list"
}
# As a process of a container sees its root.
inside_list() { # NAME CONTAINER
    podman exec "$2" tree / >"$1.list"
    compare_list "$1" "$1.list"
}

# A shell script as the root that stores belong to, in a mount namespace of its
# own; a program that still serves ./m at its end would keep that alive.
own_mounts() {
    export MOUNT_PROGRAM
    as_container_root unshare -m --propagation private bash -euo pipefail -xc \
        "trap 'umount -l m 2>/dev/null || true' EXIT; $1"
}
small_layers() { mkdir -p l1 l2/d u w m; echo 1 >l1/one; echo 2 >l2/d/two; }

# Processes of the mount program.
daemons() { [ -z "$MOUNT_PROGRAM" ] || pgrep -f "^$MOUNT_PROGRAM -o" || true; }
merged_of() { podman inspect --format '{{.GraphDriver.Data.MergedDir}}' "$1"; }
daemon_of() { # CONTAINER
    local merged
    merged=$(merged_of "$1")
    pgrep -f "^$MOUNT_PROGRAM -o .* $merged\$" | head -n 1
}

# From here on the mount program's command lines are written to the file argv.
logged_program() {
    printf '#!/bin/sh\necho "$@" >>%s\nexec %s "$@"\n' "$PWD/argv" "$MOUNT_PROGRAM" >logged
    chmod 755 logged
    : >argv
    sed "s|^mount_program.*|mount_program = \"$PWD/logged\"|" "$CONTAINERS_STORAGE_CONF" >storage.conf
    export CONTAINERS_STORAGE_CONF=$PWD/storage.conf
}

clean_store() {
    podman rm -fa -t 0
    podman image umount -fa
    # Each client that is started costs; what these remove is seldom there.
    ! grep -qs '"id"' "$WORLD"/graph/*-containers/containers.json || buildah rm -a
    ! compgen -G "$WORLD/graph/volumes/*" >/dev/null || podman volume prune -f
}
