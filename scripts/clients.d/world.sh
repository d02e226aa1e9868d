# Where the clients live: private places, and for each mode and driver a world of
# its own (stores, configuration, environment).

# Detaches what was inherited and must not be held, and opens /dev/fuse to all in
# this mount namespace only.
own_places() {
    local at
    # A copy of somebody's FUSE mount would keep their daemon alive.
    awk '$3 ~ /^fuse\.(acetate|fuse-overlayfs)$/ {print $2}' /proc/mounts | tac |
        while read -r at; do umount -l "$(printf '%b' "$at")"; done
    # crun takes either kind of cgroups, but not both at once.
    if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
    mkdir -p "$T/dev" "$T/bin" "$T/log" "$T/lists"
    mount -t tmpfs -o mode=755 none "$T/dev"
    mknod -m 666 "$T/dev/fuse" c 10 229
    mount --bind "$T/dev/fuse" /dev/fuse
    # Subordinate ids for the user, and those that root needs for --userns=auto.
    printf '%s\n' "$USER_NAME:100000:65536" containers:2147483647:200000 >"$T/subids"
    for at in /etc/subuid /etc/subgid; do
        [ -e "$at" ] || touch "$at"
        mount --bind "$T/subids" "$at"
    done
    # podman refuses run directories of more than 50 characters.
    mount -t tmpfs -o mode=755 none /run
    # podman's locks, one file for all stores of a user.
    mount -t tmpfs -o mode=1777 none /dev/shm
    busybox ip link set lo up
    chmod 777 "$T/lists"
    install -m 755 "$ACETATE" "$T/bin/acetate"
    install -m 755 "$HERE/tree" "$HERE/changes" "$T/bin/"
}

# The program behind a driver's name, or nothing.
program_of() {
    case $1 in
        acetate) echo "$T/bin/acetate" ;;
        c) command -v /usr/bin/fuse-overlayfs ;;
        rust) for p in "${FUSE_OVERLAYFS_RUST:-}" /work/tmp/fo-rust/bin/fuse-overlayfs "$HOME/.cargo/bin/fuse-overlayfs"; do
            if [ -x "$p" ]; then echo "$p"; break; fi
        done ;;
    esac
}

storage_conf() { # MOUNTOPT FORCE_MASK
    echo '[storage]'
    if [ "$DRIVER" = vfs ]; then echo 'driver = "vfs"'; else echo 'driver = "overlay"'; fi
    echo "graphroot = \"$WORLD/graph\"
runroot = \"$RUN/store\"
rootless_storage_path = \"$WORLD/graph\""
    [ "$DRIVER" != vfs ] || return 0
    echo '[storage.options.overlay]'
    [ -z "$MOUNT_PROGRAM" ] || echo "mount_program = \"$MOUNT_PROGRAM\""
    [ -z "${1:-}" ] || echo "mountopt = \"$1\""
    [ -z "${2:-}" ] || echo "force_mask = \"$2\""
}

# Sets MODE, DRIVER, WORLD, MOUNT_PROGRAM and STEP_ENV; false if the driver is not here.
make_world() { # mode driver
    local program
    MODE=$1 DRIVER=$2 WORLD=$T/$1-$2 MOUNT_PROGRAM= RUN=/run/$1-$2
    mkdir -p "$WORLD"/{bin,home/.config/containers,tmp,work} "$RUN"
    case $DRIVER in acetate | c | rust)
        program=$(program_of "$DRIVER")
        [ -n "$program" ] || return 1
        # By the name that podman and docker look for, first in the PATH.
        install -m 755 "$program" "$WORLD/bin/program"
        ln -s program "$WORLD/bin/fuse-overlayfs"
        MOUNT_PROGRAM=$WORLD/bin/fuse-overlayfs ;;
    esac
    storage_conf >"$WORLD/storage.conf"
    cat >"$WORLD/containers.conf" <<'CONF'
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1024:32768"]
netns = "none"
log_driver = "k8s-file"
[engine]
events_logger = "file"
cgroup_manager = "cgroupfs"
runtime = "crun"
CONF
    echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$WORLD/home/.config/containers/policy.json"
    echo 'unqualified-search-registries = []' >"$WORLD/home/.config/containers/registries.conf"
    chmod 700 "$RUN"
    world_environment
    if [ "$MODE" = rootless ]; then chown -R "$USER_NAME:$USER_NAME" "$WORLD" "$RUN"; fi
}

world_environment() {
    STEP_ENV=(
        PATH="$WORLD/bin:$T/bin:/usr/sbin:/usr/bin:/sbin:/bin" LC_ALL=C.UTF-8
        HOME="$WORLD/home" XDG_RUNTIME_DIR="$RUN" TMPDIR="$WORLD/tmp"
        CONTAINERS_CONF="$WORLD/containers.conf" CONTAINERS_STORAGE_CONF="$WORLD/storage.conf"
        MODE="$MODE" DRIVER="$DRIVER" WORLD="$WORLD" RUN="$RUN" MOUNT_PROGRAM="$MOUNT_PROGRAM"
        CI_PART="$CI_PART" T="$T" HERE="$HERE" REPO="$REPO"
    )
}

# Runs a command in the world, as its user.
in_world() {
    local user=()
    [ "$MODE" = root ] || user=(setpriv --reuid="$USER_NAME" --regid="$USER_NAME" --init-groups --inh-caps=-all)
    (cd "$WORLD/work" && exec env -i "${STEP_ENV[@]}" "${user[@]}" "$@")
}

unmake_world() {
    in_world podman rm -fa -t 0 >/dev/null 2>&1
    # Whatever still runs in these namespaces belongs to this world.
    end_processes
    awk -v w="$WORLD/" 'index($2, w) == 1 {print $2}' /proc/mounts | tac |
        while read -r at; do umount -l "$at" 2>/dev/null; done
    rm -f /dev/shm/libpod*
    [ -n "${KEEP:-}" ] || rm -rf "$WORLD"

}

# Ends all processes of this process namespace but the first and its helpers.
end_processes() {
    local signal pid
    for signal in TERM KILL; do
        for pid in /proc/[0-9]*; do
            pid=${pid#/proc/}
            [ "$pid" = 1 ] || [ "$pid" = $BASHPID ] || kill -$signal "$pid" 2>/dev/null
        done
        sleep 0.3
    done
}
