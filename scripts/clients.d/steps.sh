# All steps, in the order in which they run: `import` first, it makes the image
# that the others start from.
for file in containers build owners volumes images buildah options others lifecycle; do
    . "$HERE/$file.sh"
done
