# Overlays that podman itself lays over directories and images.

# A directory of the client's own, with files to change.
a_source() {
    mkdir -p src/dir/sub; echo 1 >src/f; echo 2 >src/dir/g; echo 3 >src/dir/sub/h; ln src/f src/dir/hard; chmod 600 src/f
}
source_is_whole() {
    same "the source" "$(cd src && find . -type f | sort | xargs cat | tr '\n' ' ')" "2 1 3 1 "
}

step any,ci 60 overlay_volume "-v DIR:DIR:O: changes stay in the container"
step_overlay_volume() {
    a_source
    podman run --rm -v "$PWD/src:/mnt:O" base sh -euc 'cd /mnt; echo x >>f; rm -rf dir/sub; mkdir dir/sub; mv dir dir2; touch new; chown 1:1 f
        ls -A . dir2 dir2/sub; cat f dir2/hard' >out
    same "what it saw" "$(tr '\n' ' ' <out)" ".: dir2 f new  dir2: g hard sub  dir2/sub: 1 x 1 x "
    source_is_whole
    mkdir up wk
    podman run --rm -v "$PWD/src:/mnt:O,upperdir=$PWD/up,workdir=$PWD/wk" base sh -c 'echo kept >/mnt/kept; rm /mnt/f'
    podman run --rm -v "$PWD/src:/mnt:O,upperdir=$PWD/up,workdir=$PWD/wk" base sh -c 'cat /mnt/kept; ! ls /mnt/f'
    source_is_whole
}

step any,ci 60 rootfs "--rootfs DIR:O"
step_rootfs() {
    mkdir root
    as_container_root tar -C root -xpf "$T/base.tar" --numeric-owner --exclude ./data/mode0
    podman run --rm --rootfs "$PWD/root:O" sh -euc 'rm -rf /data/d1; mkdir /data/d1; echo y >/data/d1/y; mv /data/d3 /data/d9; ls /data/d1 /data/d9'
    test ! -e root/data/d9
    same "the directory" "$(ls root/data/d1 | tr '\n' ' ')" "f1 f2 f3 h3 sub "
    as_container_root rm -rf root
}

step any,ci 60 image_mount "--mount type=image, read only and rw"
step_image_mount() {
    podman run --rm --mount type=image,source=base,destination=/img base sh -c '! touch /img/x && tree /data >/tmp/1 && tree /img/data >/tmp/2 && cmp /tmp/1 /tmp/2'
    podman run -d --name c --mount type=image,source=base,destination=/img,rw=true base sleep 1000
    podman exec c changes /img/data
    podman exec c tree /img/data >img.list
    compare_list data img.list
    image_list import base
}
