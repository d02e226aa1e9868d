# Images on their way: archives, registries, other tools.

# An image of three layers with deletions in them.
a_layered_image() { # NAME
    mkdir -p layered
    printf '%s\n' 'FROM localhost/base' 'RUN changes' \
        'RUN rm -rf /data/d2 && mkdir /data/d2 && rm /data/plain && echo 3 >/data/d2/three' >layered/Containerfile
    podman build -q --network none --layers -t "$1" layered
}

step any,ref,ci 120 save_load "save and load: docker-archive, oci-archive, oci-dir"
step_save_load() {
    local format
    a_layered_image pack
    image_list layered pack
    for format in docker-archive oci-archive oci-dir; do
        podman save -q --format $format -o "pack.$format" pack
        podman rmi -f pack
        if [ $format = oci-dir ]; then podman tag "$(podman pull -q oci:pack.oci-dir)" pack; else podman load -q -i "pack.$format"; fi
        image_list layered pack
    done
    podman run -d --name c pack sleep 1000
    inside_list layered-inside c
}

# Starts a registry on 127.0.0.1:5000 that ends with the step.
start_registry() {
    mkdir registry
    cat >registry.yml <<CONF
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $PWD/registry}, delete: {enabled: true}}
http: {addr: 127.0.0.1:5000}
CONF
    docker-registry serve registry.yml &
    trap "kill $!" EXIT
    until_true 20 registry_answers
}
registry_answers() { (exec 3<>/dev/tcp/127.0.0.1/5000) 2>/dev/null; }

step any,ref,ci 120 registry "push to and pull from a registry; skopeo copy there and back"
step_registry() {
    start_registry
    a_layered_image pack
    podman push -q --tls-verify=false pack 127.0.0.1:5000/pack:1
    podman rmi -f pack
    podman pull -q --tls-verify=false 127.0.0.1:5000/pack:1
    image_list layered 127.0.0.1:5000/pack:1
    skopeo copy -q --src-tls-verify=false docker://127.0.0.1:5000/pack:1 "oci:$PWD/oci:pack"
    as_container_root skopeo copy -q "oci:$PWD/oci:pack" containers-storage:localhost/copied:1
    image_list layered localhost/copied:1
    as_container_root skopeo copy -q --dest-tls-verify=false containers-storage:localhost/copied:1 docker://127.0.0.1:5000/back:1
    podman rmi -f 127.0.0.1:5000/pack:1 localhost/copied:1
    podman pull -q --tls-verify=false 127.0.0.1:5000/back:1
    image_list layered 127.0.0.1:5000/back:1
}

step any,ref 120 umoci "umoci unpack and repack of a saved image, and back into podman"
step_umoci() {
    local rootless=()
    [ "$MODE" = root ] || rootless=(--rootless)
    a_layered_image pack
    podman save -q --format oci-dir -o dir pack
    skopeo copy -q "oci:$PWD/dir" "oci:$PWD/oci:pack"
    umoci unpack "${rootless[@]}" --image oci:pack bundle
    test -e bundle/rootfs/data/d2/three && test ! -e bundle/rootfs/data/d2/new && test ! -e bundle/rootfs/data/plain
    if [ "$MODE" = root ]; then
        tree bundle/rootfs >umoci.list
        compare_list umoci umoci.list
    fi
    rm -rf bundle/rootfs/data/d1; mkdir bundle/rootfs/data/d1; echo umoci >bundle/rootfs/data/d1/by-umoci
    umoci repack --image oci:pack2 bundle
    podman tag "$(podman pull -q oci:oci:pack2)" back
    same "d1" "$(podman run --rm back sh -c 'ls /data/d1; cat /data/d1/by-umoci' | tr '\n' ' ')" "by-umoci umoci "
    [ "$MODE" = rootless ] || image_list umoci-back back
    rm -rf bundle 2>/dev/null || as_container_root rm -rf bundle
}

step any,ref 60 whiteouts "a layer with whiteouts and opaque directories as other tools write them"
step_whiteouts() {
    mkdir -p l1/a/sub l1/b/keep l1/c l2/a/sub l2/b oci/blobs/sha256
    echo 1 >l1/a/f1; echo 2 >l1/a/f2; echo x >l1/a/sub/x; echo k >l1/b/keep/k; echo c >l1/c/c; echo t >l1/top
    : >l2/a/.wh.f2; : >l2/a/sub/.wh..wh..opq; echo n >l2/a/sub/new; : >l2/b/.wh.keep; : >l2/.wh.c; : >l2/.wh.top
    mkdir l2/b/keep2
    cp "$(command -v busybox)" l1/busybox
    layer l1; layer l2
    finish_image two
    podman tag "$(podman pull -q oci:oci)" two
    image_list whiteouts two
    podman run --name c two /busybox sh -c '/busybox find /a /b; ! /busybox ls /c; ! /busybox ls /a/sub/x; ! /busybox ls /top; /busybox mkdir /c; /busybox touch /a/f2'
    podman commit -q c three
    image_list whiteouts3 three
}

# Writes directory DIR as a layer of the image in ./oci.
layer() { # DIR
    local digest
    tar --sort=name --numeric-owner --owner=0 --group=0 -C "$1" -cf layer.tar .
    digest=$(sha256sum layer.tar | cut -d' ' -f1)
    LAYERS+="${LAYERS:+,}{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"sha256:$digest\",\"size\":$(stat -c %s layer.tar)}"
    DIFFS+="${DIFFS:+,}\"sha256:$digest\""
    mv layer.tar "oci/blobs/sha256/$digest"
}
LAYERS='' DIFFS=''

# Writes the configuration, the manifest and the index of the image in ./oci.
finish_image() { # NAME
    local type=application/vnd.oci.image config manifest
    config=$(blob "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[$DIFFS]}}" $type.config.v1+json)
    manifest=$(blob "{\"schemaVersion\":2,\"config\":$config,\"layers\":[$LAYERS]}" $type.manifest.v1+json)
    echo "{\"schemaVersion\":2,\"manifests\":[$manifest]}" >oci/index.json
    echo '{"imageLayoutVersion":"1.0.0"}' >oci/oci-layout
}
blob() { # TEXT TYPE
    local digest
    digest=$(printf %s "$1" | sha256sum | cut -d' ' -f1)
    printf %s "$1" >"oci/blobs/sha256/$digest"
    printf '{"mediaType":"%s","digest":"sha256:%s","size":%d}' "$2" "$digest" "$(stat -c %s "oci/blobs/sha256/$digest")"
}
