# buildah
