//! Section L: what was reported about the kernel's overlayfs and other unions.

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;

use rustix::fs::inotify;

use crate::support::host::{kernel_seen, require_kernel_overlay_with};
use crate::support::story::{Story, on_ours, require_real_root, sh};
use crate::support::{Base, Kind, Layers, Mount, Snapshot, diff, require_kernel_overlay};

/// Kernel documentation, amir73il/overlayfs#6: reading a lower file does not move its access time there, and a read-only
/// shared mapping misses later writes. The first is what a layer needs; the second we do better.
#[test]
fn l1_reading_moves_no_access_time_of_a_layer_and_mappings_see_writes() {
    on_ours(
        Base::Disk,
        2,
        "mkdir l0/d l1/d; for i in 1 2 3; do echo $i > l0/d/a$i; echo $i > l1/d/b$i; ln -s x l1/d/s$i; done; find l0 l1 | xargs touch -h -a -d '2001-01-01'",
        "",
        |layers, _| {
            sh(&layers.merged, "ls -lR >/dev/null; cat d/[ab]*; readlink d/s1; echo x >> d/b1; mv d d2; tar -cf - . | wc -c; rm -r d2").unwrap();
            // Reading a symlink moves its access time where a clone of the mount cannot be made `noatime`: README.md says so.
            let symlinks = kernel_seen() >= (5, 12);
            let names: &[&str] = if symlinks {
                &["", "d", "d/a1", "d/b1", "d/b2", "d/s1"]
            } else {
                &["", "d", "d/a1", "d/b1", "d/b2"]
            };
            let mut checked = 0;
            for layer in &layers.lowers {
                for name in names {
                    if let Ok(meta) = layer.join(name).symlink_metadata() {
                        assert_eq!(
                            meta.atime(),
                            978_307_200,
                            "{}/{name}: access time",
                            layer.display()
                        );
                        checked += 1;
                    }
                }
            }
            assert_eq!(checked, if symlinks { 8 } else { 7 });
        },
    );
    on_ours(Base::Shm, 1, "echo before > l0/f", "", |layers, _| {
        let file = File::open(layers.at("f")).unwrap();
        // SAFETY: a new read-only mapping of one page, unmapped with the process.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ,
                libc::MAP_SHARED,
                std::os::fd::AsRawFd::as_raw_fd(&file),
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED);
        // SAFETY: inside that page.
        let byte = || unsafe { at.cast::<u8>().read_volatile() };
        assert_eq!(byte(), b'b');
        sh(
            &layers.merged,
            "printf AFTER | dd of=f conv=notrunc 2>/dev/null",
        )
        .unwrap();
        assert_eq!(
            byte(),
            b'A',
            "a read-only shared mapping made before the copy-up"
        );
        // SAFETY: the mapping made above, used no more.
        unsafe { libc::munmap(at, 4096) };
    });
}

/// asterinas/asterinas#3760, cvmfs/cvmfs#3126, tkashkin/GameHub#205: hard links broke without an index, and with one the kernel
/// refused to remount with another lower (stale handle). Links are kept, and a copied lower does not stop the mount.
#[test]
fn gamehub205_the_index_does_not_block_a_remount_over_a_moved_lower() {
    if !(require_real_root()) {
        return;
    }
    let mut layers = Layers::new(Base::Shm, 1);
    sh(
        &layers.root,
        "echo x > l0/a; ln l0/a l0/b; mkdir l0/d; echo y > l0/d/f; echo z > l0/d/g; ln l0/d/f l0/e",
    )
    .unwrap();
    let mount = Mount::acetate(&layers, "");
    sh(
        &layers.merged,
        "echo more >> a; cat b; mv d d2; echo w >> d2/f",
    )
    .unwrap();
    let before = Snapshot::of(&layers.merged);
    mount.unmount();
    // The user copies the layer elsewhere: other inode numbers, other handles, same content.
    sh(&layers.root, "cp -a l0 moved; rm -r l0").unwrap();
    layers.lowers = vec![layers.root.join("moved")];
    let mount = Mount::acetate(&layers, "");
    let after = Snapshot::of(&layers.merged);
    after.assert_sound("over the copied lower");
    assert_eq!(before.names(), after.names());
    for (name, object) in &before.objects {
        // Which names are one file was known by the old lower's inode numbers: of b and e the content may be the lower's.
        if name != "b" && name != "e" {
            assert_eq!(object.content, after.objects[name].content, "{name}");
        }
    }
    sh(
        &layers.merged,
        "echo again >> a; tail -1 a; echo v >> d2/g; rm -r d2; mkdir d2; ls -A d2",
    )
    .map(|o| assert_eq!(o, "again\n"))
    .unwrap();
    mount.unmount();
}

/// MM#11705, libuv/libuv#1201, facebook/watchman#831, MF#974: inotify missed changes. Events of changes made through our mount
/// arrive, for lower files too, over their copy-up.
#[test]
fn mm11705_inotify_sees_changes_made_through_the_mount() {
    on_ours(
        Base::Shm,
        1,
        "mkdir l0/d; echo x > l0/d/f; echo y > l0/d/g",
        "",
        |layers, _| {
            let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
            inotify::add_watch(&watch, layers.at("d"), inotify::WatchFlags::ALL_EVENTS).unwrap();
            for (act, wanted, name) in [
                ("echo z >> d/f", inotify::ReadFlags::MODIFY, "f"),
                ("chmod 600 d/g", inotify::ReadFlags::ATTRIB, "g"),
                (": > d/new", inotify::ReadFlags::CREATE, "new"),
                ("mv d/f d/f2", inotify::ReadFlags::MOVED_TO, "f2"),
                ("rm d/g", inotify::ReadFlags::DELETE, "g"),
                ("mkdir d/m", inotify::ReadFlags::CREATE, "m"),
            ] {
                sh(&layers.merged, act).unwrap();
                let mut buffer = [MaybeUninit::uninit(); 8192];
                let mut reader = inotify::Reader::new(&watch, &mut buffer);
                let mut seen = Vec::new();
                while let Ok(event) = reader.next() {
                    seen.push((
                        event.events(),
                        event
                            .file_name()
                            .map(|n| n.to_string_lossy().into_owned())
                            .unwrap_or_default(),
                    ));
                }
                assert!(
                    seen.iter()
                        .any(|(flags, n)| flags.contains(wanted) && n == name),
                    "{act}: {seen:?}"
                );
            }
        },
    );
}

/// P#5816, P#22046: after a crash with `volatile` the kernel refuses the upper ("stale file handle", or a message about
/// volatile in the log). Here the next mount works, or says in words what to do.
#[test]
fn p5816_a_volatile_upper_after_a_crash() {
    if !(require_real_root()) {
        return;
    }
    let layers = Layers::new(Base::Shm, 1);
    fs::write(layers.lowers[0].join("f"), "old").unwrap();
    let mount = Mount::acetate(&layers, "volatile");
    sh(&layers.merged, "echo new > f; echo n > n; sync; sync -f f").unwrap();
    if mount.pid().is_none() {
        return;
    }
    mount.kill_daemon();
    match Mount::try_acetate(&layers, "volatile") {
        Ok(mount) => {
            assert_eq!(sh(&layers.merged, "cat f n").unwrap(), "new\nn\n");
            mount.unmount();
        }
        Err(e) => assert!(
            e.to_string().contains("volatile"),
            "the message must say why: {e}"
        ),
    }
}

/// libfuse/libfuse#834, A#647: kernel overlayfs over a FUSE mount gave ENXIO for symlinks, and writes failed. Ours as the
/// lower of a kernel overlay, and of the kernel's userxattr kind.
#[test]
fn libfuse834_kernel_overlayfs_over_our_mount() {
    if !(require_real_root() && require_kernel_overlay()) {
        return;
    }
    let ours = Layers::new(Base::Shm, 2);
    sh(&ours.root, "mkdir -p l1/d/s l0/d; echo f > l1/d/f; ln -s d/f l1/link; ln -s nowhere l1/dangling; echo g > l0/d/g; ln l1/d/f l1/h; mkfifo l1/p").unwrap();
    let mount = Mount::acetate(&ours, "");
    sh(&ours.merged, "rm -r d/s; mkdir d/s; echo up > d/s/up").unwrap();
    let below = Snapshot::of(&ours.merged);
    let kinds = ["", "userxattr", "index=on,redirect_dir=on"];
    // The second came with Linux 5.11.
    for words in kinds
        .into_iter()
        .filter(|words| words.is_empty() || require_kernel_overlay_with(words))
    {
        let mut over = Layers::new(Base::Shm, 0);
        over.lowers = vec![ours.merged.clone()];
        let kernel = Mount::kernel(&over, words);
        let mut above = Snapshot::of(&over.merged);
        // The kernel itself lists merged directories with other numbers than it stats them when layers differ in st_dev.
        above.faults.retain(|fault| !fault.contains("d_ino"));
        assert_eq!(diff(&below, &above), Vec::<String>::new(), "{words}");
        sh(&over.merged, "readlink link dangling; cat link; echo w >> d/f; cat d/f; chmod 600 d/g; mv d/s d/t 2>/dev/null; rm h; ls d; rm -r d; mkdir d; ls -A d")
            .map(|o| assert_eq!(o, "d/f\nnowhere\nf\nf\nw\nf\ng\nt\n", "{words}"))
            .unwrap();
        kernel.unmount();
    }
    assert_eq!(
        diff(&below, &Snapshot::of(&ours.merged)),
        Vec::<String>::new(),
        "our mount, as a lower, is unchanged"
    );
    mount.unmount();
}

/// MF#1343: a link count changed by ourselves was late by the cache's timeout. The changes we make are seen at once: link
/// counts, times of parents, sizes.
#[test]
fn mf1343_changes_we_make_are_seen_at_once() {
    Story::new(1, "mkdir l0/d; echo x > l0/f; ln l0/f l0/g; touch -d '2000-01-01' l0/d")
        .step(
            "stat -c '%n %h %s' f g; ln f d/h; stat -c '%n %h' f g d/h; test $(stat -c %Y d) -gt 1000000000; rm g; stat -c %h f d/h
             echo more >> d/h; stat -c %s f d/h; touch -d '2000-01-01' d; stat -c %Y d; mv d/h d/i; test $(stat -c %Y d) -gt 1000000000; stat -c '%n %h' f d/i
             touch -d '2000-01-01' d; rm d/i; test $(stat -c %Y d) -gt 1000000000; stat -c %h f; echo new > n; mv n f; stat -c '%h %s' f
             touch -d '2000-01-01' .; mkdir m; test $(stat -c %Y .) -gt 1000000000; chmod 500 m; stat -c %a m; mv m d/; stat -c %a d/m",
        )
        .run();
}

// MM#10180, MM#25705 (rpm and yum, a read-only then a writable descriptor): in data.rs, with gvisor#1006.
// MF#22, MF#903, MF#177, mergerfs-tools#21, MF#527 (control files, live branch edit), MF#899, MF#770 (NFS export),
// U#132 (the original kept beside a changed file): wishes; no such feature exists to be tested. Read-only layers are what
// every lower is.

/// A file whose data is nowhere (metacopy without a lower) cannot be looked up: EIO. It is listed all the same, by `ls`
/// and by `ls -l`, on the kernel and on ours, and the names around it are whole.
#[test]
fn a_name_that_cannot_be_looked_up_is_still_listed() {
    if !require_real_root() {
        return;
    }
    let script = "ls -1 d; ls -l d 2>&1 | grep -c good; for n in d/lost d/lost2; do stat $n 2>&1 | grep -o 'Input/output error'; done; \
                  echo new > d/more; ls -1 d; ! rmdir d 2>/dev/null; cat d/good*";
    let told = [Kind::Kernel, Kind::Acetate].map(|kind| {
        let layers = Layers::new(Base::Shm, 1);
        sh(
            &layers.root,
            "mkdir l0/d; for n in good lost good2 lost2; do echo $n > l0/d/$n; done; for n in lost lost2; do setfattr -n trusted.overlay.metacopy l0/d/$n; done",
        )
        .unwrap();
        let mount = Mount::with(kind, &layers, "metacopy=on");
        let text = sh(&layers.merged, script).unwrap();
        mount.unmount();
        text
    });
    assert_eq!(told[0], told[1]);
    assert!(
        told[1]
            .starts_with("good\ngood2\nlost\nlost2\n2\nInput/output error\nInput/output error\n"),
        "{}",
        told[1]
    );
}
