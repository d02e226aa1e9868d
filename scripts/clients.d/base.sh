# The base image, from packages of this host: busybox, a few real programs with
# their libraries, and below /data what the steps change. Made once, as a tar.

make_base() {
    local root=$T/base program applet
    mkdir -p "$root"/{bin,sbin,lib,lib64,usr,etc,proc,sys,dev,run,tmp,root,var/tmp,home/app,opt}
    ln -s ../bin "$root/usr/bin"; ln -s ../sbin "$root/usr/sbin"; ln -s ../lib "$root/usr/lib"
    chmod 1777 "$root/tmp" "$root/var/tmp"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for applet in $(busybox --list); do [ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"; done
    for program in dash stat find sha256sum sort xargs touch cp mv ln mkfifo tar getfattr setfattr getfacl setfacl setcap getcap; do
        with_libraries "$root" "$program"
    done
    # busybox's shell takes its own programs before those in the PATH.
    ln -sf dash "$root/bin/sh"
    install -m 755 "$HERE/tree" "$HERE/changes" "$root/bin/"
    printf '%s\n' root:x:0:0:root:/root:/bin/sh app:x:1234:4321:app:/home/app:/bin/sh >"$root/etc/passwd"
    printf '%s\n' root:x:0: app:x:4321: >"$root/etc/group"
    chown 1234:4321 "$root/home/app"
    make_data "$root/data"
    # Steps that give a mount program a directory of plain files use this one.
    tar --sort=name --xattrs --xattrs-include='*' --numeric-owner -C "$root" -cf "$T/base.tar" .
    chmod 644 "$T/base.tar"
}

with_libraries() { # ROOT PROGRAM
    local path lib
    path=$(realpath "$(command -v "$2")")
    rm -f "$1/bin/$2"; cp "$path" "$1/bin/$2"
    for lib in $(ldd "$path" | grep -o '/[^ ]*'); do
        # The loader is asked for by its full name, the others by their directory.
        case $lib in */ld-linux*) mkdir -p "$1$(dirname "$lib")"; cp -L "$lib" "$1$lib" ;; *) cp -L "$lib" "$1/lib/" ;; esac
    done
}

# What `changes` then works on.
make_data() { (
    mkdir -p "$1"; cd "$1" || exit 1
    umask 022
    mkdir -p d1/sub d2/sub/deep d3/a/b d4/sub d5 gone/x/y tree/t1/t2 todir tofile/inner .dots
    for f in d1/f1 d1/f2 d1/f3 d1/sub/x d2/old d2/sub/deep/x d3/a/b/c d3/top d4/sub/s1 d5/keep gone/x/y/z \
        tree/r1 tree/t1/r2 tree/t1/t2/r3 tofile/inner/i todir-file append over under f-old .dots/.hidden; do
        echo "base $f" >"$f"
    done
    echo "space, comma: and colon" >'a name, with: all \of it'
    echo long >"$(printf '%0255d' 7)"
    echo links >h1; ln h1 h2; ln h1 d1/h3
    ln -s d1/f1 link; ln -s /nowhere dangling; ln -s d5 linkdir
    cp /bin/true suid; chmod 4755 suid; cp /bin/true sgid; chmod 2755 sgid; mkdir sticky sgiddir; chmod 1777 sticky; chmod 2775 sgiddir
    echo secret >mode0; chmod 0 mode0; echo ro >mode444; chmod 444 mode444
    echo owned >owned; chown 1234:4321 owned; mkdir ownedir; echo in >ownedir/in; chown -R 77:88 ownedir; chmod 700 ownedir
    mkfifo pipe; chmod 620 pipe
    truncate -s 8M sparse; echo end >>sparse; head -c 3000000 /dev/urandom >big
    cp /bin/true capable; setcap cap_net_bind_service+ep capable
    setfattr -n user.note -v "on a file" append; setfattr -n user.note -v "on a directory" d5
    touch -d '2001-02-03 04:05:06.123456789 UTC' d1/f3 mode444 owned big
    touch -h -d '2002-02-03 04:05:06.5 UTC' dangling
); }
