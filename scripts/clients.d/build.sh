# Images from a Containerfile: deletes, renames, owners, links, capabilities,
# sparse files, fifos, in one RUN and in many.

containerfile() {
    mkdir -p ctx/add/sub
    echo added >ctx/add/a; echo deep >ctx/add/sub/b; ln -s a ctx/add/link; chmod 640 ctx/add/a
    cat >ctx/Containerfile <<'FILE'
FROM localhost/base
RUN changes
RUN umask 027 && mkfifo /data/fifo2 && touch /data/file2 && mkdir /data/dir2 && mkdir -p /data/x/y/z && echo 1 >/data/x/y/z/1
RUN rm -rf /data/x && mkdir /data/x && echo 2 >/data/x/two
RUN mv /data/d1 /data/d1-moved && rm /data/d1-moved/f2 2>/dev/null; mv /data/x /data/d1
COPY add /data/add
COPY --chown=12:34 add/a /data/chowned
ADD add/sub /data/d1/
RUN rm -rf /data/add/sub && ln /data/add/a /data/add/a2 && chown -R 1:2 /data/add && chmod 2755 /data/add
RUN rm -rf /data/d2 && mkdir /data/d2 && ! ls /data/d2/new 2>/dev/null && echo fourth >/data/d2/4
RUN setcap cap_net_admin+ep /data/suid && busybox truncate -s 1M /data/holes && cp /data/holes /data/holes2
RUN busybox adduser -D -H -u 777 late 2>/dev/null || echo "late:x:777:777::/:/bin/sh" >>/etc/passwd
USER 1234
RUN touch /home/app/mine && mkdir /home/app/dir && ! touch /data/d2/no 2>/dev/null
USER 0
WORKDIR /work/here
RUN echo in >dir-made
FILE
}

step any,ref,ci 150 build_layers "build: a Containerfile, one layer a step, and again from its cache"
step_build_layers() {
    containerfile
    podman build -q --network none --layers -t built ctx
    image_list built built
    same "from the cache" "$(podman build -q --network none --layers -t again ctx)" "$(podman image inspect --format '{{.Id}}' built)"
    podman run -d --name c built sleep 1000
    inside_list built-inside c
    as_container_root sh -euc 'm=$(podman image mount built); test ! -e "$m/data/d2/old"; test ! -e "$m/data/d1/sub"; podman image umount built'
}

step any,ref 150 build_one_layer "build --layers=false: the same image"
step_build_one_layer() {
    containerfile
    podman build -q --network none --layers=false -t one ctx
    image_list built-one one
}

step any,ref 150 build_squash "build --squash-all"
step_build_squash() {
    containerfile
    podman build -q --network none --squash-all -t flat ctx
    image_list built-flat flat
}

step any,ref 90 build_stages "build: COPY --from, RUN --mount=bind and =cache, FROM scratch"
step_build_stages() {
    mkdir ctx; echo ctx >ctx/file
    cat >ctx/Containerfile <<'FILE'
FROM localhost/base AS one
RUN changes && rm -rf /data/big /data/holes
FROM localhost/base AS two
RUN --mount=type=bind,from=one,source=/data,target=/mnt,rw cp -a /mnt/d5 /data/from-mount && echo changed >/mnt/scratch
RUN --mount=type=bind,source=file,target=/mnt/f cat /mnt/f >/data/file-of-context
RUN --mount=type=cache,target=/cache echo kept >>/cache/it
RUN --mount=type=cache,target=/cache cp /cache/it /data/cached
RUN --mount=type=tmpfs,target=/scratch touch /scratch/x
FROM scratch
COPY --from=one /data /data
COPY --from=two /data/from-mount /from-mount
COPY --from=two /data/file-of-context /data/cached /
FILE
    podman build -q --network none -t staged ctx
    image_list staged staged
}
