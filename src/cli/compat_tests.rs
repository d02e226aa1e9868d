//! Every call of mount-program-contract.md, word for word, and what it means.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::app::{Durability, IdExtent, MountFlags, RedirectDir, XattrPermissions, Xino};

fn words(args: &[&str]) -> Vec<OsString> {
    args.iter().map(OsString::from).collect()
}

fn mount(dialect: Dialect, args: &[&str]) -> MountCall {
    match parse(dialect, &words(args)) {
        Ok(Call::Mount(call)) => *call,
        other => panic!("{args:?} gives {other:?}"),
    }
}

fn overlay(args: &[&str]) -> MountCall {
    mount(Dialect::FuseOverlayfs, args)
}

fn lowers(call: &MountCall) -> Vec<&str> {
    call.meaning
        .options
        .lowers
        .iter()
        .map(|l| l.path.to_str().unwrap())
        .collect()
}

fn unknown(call: &MountCall) -> Vec<&str> {
    call.meaning
        .unknown
        .iter()
        .map(|w| w.to_str().unwrap())
        .collect()
}

#[test]
fn podman_4_mounts_a_container() {
    let call = overlay(&[
        "-o",
        "lowerdir=/g/overlay/l/AAAA:/g/overlay/l/BBBB,upperdir=/g/overlay/id/diff,workdir=/g/overlay/id/work,,volatile,context=\"system_u:object_r:container_file_t:s0:c1,c2\"",
        "/g/overlay/id/merged",
    ]);
    assert_eq!(lowers(&call), ["/g/overlay/l/AAAA", "/g/overlay/l/BBBB"]);
    let options = &call.meaning.options;
    assert_eq!(
        options.upper.as_deref(),
        Some(Path::new("/g/overlay/id/diff"))
    );
    assert_eq!(
        options.work.as_deref(),
        Some(Path::new("/g/overlay/id/work"))
    );
    assert_eq!(options.durability, Durability::Volatile);
    assert_eq!(call.mountpoint, Path::new("/g/overlay/id/merged"));
    assert_eq!(
        call.meaning.contexts,
        [(
            "context".to_owned(),
            OsString::from("system_u:object_r:container_file_t:s0:c1,c2")
        )]
    );
    assert!(unknown(&call).is_empty());
    assert!(!call.foreground && !call.debug);
}

#[test]
fn podman_4_ends_the_options_with_a_comma_and_begins_maps_with_a_colon() {
    let call = overlay(&[
        "-o",
        "lowerdir=/l,upperdir=/u,workdir=/w,,uidmapping=:0:1:1000:1000:0:1,gidmapping=:0:1:1000,",
        "/m",
    ]);
    let options = &call.meaning.options;
    assert_eq!(
        options.uid_map,
        [
            IdExtent {
                disk: 0,
                view: 1,
                count: 1000
            },
            IdExtent {
                disk: 1000,
                view: 0,
                count: 1
            }
        ]
    );
    assert_eq!(
        options.gid_map,
        [IdExtent {
            disk: 0,
            view: 1,
            count: 1000
        }]
    );
    assert_eq!(options.squash_uid, None);
}

#[test]
fn a_single_mapping_of_one_id_stays_a_mapping() {
    let call = overlay(&["-o", "lowerdir=/l,uidmapping=0:1000:1", "/m"]);
    assert_eq!(
        call.meaning.options.uid_map,
        [IdExtent {
            disk: 0,
            view: 1000,
            count: 1
        }]
    );
    assert_eq!(call.meaning.options.squash_uid, None);
    let call = overlay(&[
        "-o",
        "lowerdir=/l,squash_to_uid=1000,squash_to_gid=100",
        "/m",
    ]);
    assert_eq!(call.meaning.options.squash_uid, Some(1000));
    assert_eq!(call.meaning.options.squash_gid, Some(100));
}

#[test]
fn podman_mounts_read_only_without_upper_and_work() {
    let call = overlay(&["-o", "lowerdir=/g/id/diff:/g/l/A:/g/l/B", "/g/id/merged"]);
    assert_eq!(lowers(&call).len(), 3);
    assert_eq!(call.meaning.options.upper, None);
    assert_eq!(call.meaning.options.work, None);
}

#[test]
fn network_home_asks_for_xattr_permissions() {
    let call = overlay(&[
        "-o",
        "lowerdir=/l,upperdir=/u,workdir=/w,xattr_permissions=2",
        "/m",
    ]);
    assert_eq!(
        call.meaning.options.xattr_permissions,
        Some(XattrPermissions::User)
    );
}

#[test]
fn buildah_mounts_an_overlay_volume_with_escaped_colons_and_private() {
    let call = overlay(&[
        "-o",
        r"lowerdir=/src\:with\:colons,upperdir=/u,workdir=/w,private",
        "/merge",
    ]);
    assert_eq!(lowers(&call), ["/src:with:colons"]);
    assert!(unknown(&call).is_empty());
}

#[test]
fn mount_fuse3_of_containerd_calls_with_source_and_directory_first() {
    let call = overlay(&[
        "overlay",
        "/run/target",
        "-o",
        "workdir=/s/7/work,upperdir=/s/7/fs,lowerdir=/s/6/fs:/s/5/fs,dev,suid",
    ]);
    assert_eq!(call.source.as_deref(), Some(OsStr::new("overlay")));
    assert_eq!(call.mountpoint, Path::new("/run/target"));
    assert_eq!(lowers(&call), ["/s/6/fs", "/s/5/fs"]);
    assert!(unknown(&call).is_empty());
    assert_eq!(call.meaning.flags, MountFlags::empty());
}

#[test]
fn containerd_gives_several_dash_o() {
    let call = overlay(&[
        "overlay",
        "/t",
        "-o",
        "workdir=/w",
        "-o",
        "upperdir=/u",
        "-o",
        "lowerdir=/l",
        "-o",
        "writeback=0",
    ]);
    assert_eq!(lowers(&call), ["/l"]);
    assert!(call.meaning.options.upper.is_some() && call.meaning.options.work.is_some());
    assert!(!call.meaning.options.writeback);
}

#[test]
fn mount_8_from_fstab_passes_its_own_words() {
    let call = mount(
        Dialect::MountFuse,
        &[
            "none",
            "/mnt",
            "-o",
            "rw,nodev,exec,auto,noauto,user,users,owner,group,_netdev,nofail,x-systemd.requires-mounts-for=/u,x-mount.mkdir,comment=hello,lazytime,nolazytime,dirsync,async,nodiratime,relatime,strictatime,lowerdir=/a:/b,upperdir=/u,workdir=/w,dev,suid",
        ],
    );
    assert!(unknown(&call).is_empty());
    assert!(!call.meaning.flags.contains(MountFlags::NODEV));
    assert!(
        call.meaning
            .flags
            .contains(MountFlags::DIRSYNC | MountFlags::NODIRATIME)
    );
}

#[test]
fn mount_8_calls_a_helper_with_its_own_letters() {
    let call = mount(
        Dialect::Helper,
        &[
            "none",
            "/mnt",
            "-sfnv",
            "-N",
            "/proc/1/ns/mnt",
            "-o",
            "rw,lowerdir=/a",
            "-t",
            "fuse.acetate",
        ],
    );
    assert!(call.fake && !call.foreground);
    assert_eq!(call.namespace.as_deref(), Some(Path::new("/proc/1/ns/mnt")));
    assert_eq!(lowers(&call), ["/a"]);
}

#[test]
fn docker_mounts_with_absolute_paths() {
    let call = overlay(&[
        "-o",
        "lowerdir=/var/lib/docker/fuse-overlayfs/l/A:/var/lib/docker/fuse-overlayfs/l/B,upperdir=/var/lib/docker/fuse-overlayfs/ID/diff,workdir=/var/lib/docker/fuse-overlayfs/ID/work",
        "/var/lib/docker/fuse-overlayfs/ID/merged",
    ]);
    assert_eq!(lowers(&call).len(), 2);
}

#[test]
fn five_hundred_layers_in_forty_kilobytes() {
    let layers: Vec<String> = (0..500)
        .map(|i| {
            format!(
                "/home/user/.local/share/containers/storage/overlay/l/ABCDEFGHIJKLMNOPQRSTUV{i:04}"
            )
        })
        .collect();
    let text = format!("lowerdir={},upperdir=/u,workdir=/w", layers.join(":"));
    assert!(text.len() > 38_000);
    let call = overlay(&["-o", &text, "/m"]);
    assert_eq!(lowers(&call), layers);
}

#[test]
fn composefs_gives_data_only_layers() {
    let call = overlay(&[
        "-o",
        "redirect_dir=on,metacopy=on,lowerdir=/meta::/data1::/data2",
        "/m",
    ]);
    let data: Vec<bool> = call
        .meaning
        .options
        .lowers
        .iter()
        .map(|l| l.data_only)
        .collect();
    assert_eq!(data, [false, true, true]);
    assert!(call.meaning.options.metacopy);
    assert_eq!(call.meaning.options.redirect_dir, RedirectDir::On);
    let call = overlay(&["-o", "lowerdir+=/a:b,lowerdir+=/c,datadir+=/d", "/m"]);
    assert_eq!(lowers(&call), ["/a:b", "/c", "/d"]);
    assert!(call.meaning.options.lowers[2].data_only);
}

#[test]
fn words_of_the_kernel_and_of_libfuse_are_no_news() {
    let call = overlay(&[
        "-o",
        "lowerdir=/l,index=off,xino=off,nfs_export=off,verity=off,uuid=null,userxattr,override_creds,allow_other,allow_root,default_permissions,auto_unmount,fsname=foo,subtype=bar,max_read=4096,max_idle_threads=10,max_threads=3,clone_fd,fast_ino=1,noxattrs=1,plugins=a,ino32_t,static_nlink,noacl,writeback=1,threaded=0,timeout=1.5,rslave",
        "/m",
    ]);
    assert_eq!(unknown(&call), [""; 0]);
    let options = &call.meaning.options;
    assert_eq!(options.index, Some(false));
    assert_eq!(options.xino, Xino::Off);
    assert_eq!(options.threads, Some(1));
    assert_eq!(
        options.timeout,
        Some(std::time::Duration::from_millis(1500))
    );
    assert!(
        options.userxattr
            && options.ino32
            && options.static_nlink
            && options.no_acl
            && options.writeback
    );
    assert_eq!(call.meaning.source.as_deref(), Some(OsStr::new("foo")));
}

#[test]
fn unknown_words_are_kept_for_one_warning() {
    let call = overlay(&["-o", "lowerdir=/l,loverdir=/x,frobnicate", "/m"]);
    assert_eq!(unknown(&call), ["loverdir=/x", "frobnicate"]);
}

#[test]
fn ro_means_ro_and_the_last_word_wins() {
    assert!(
        overlay(&["-o", "lowerdir=/l,ro", "/m"])
            .meaning
            .options
            .read_only
    );
    assert!(
        !overlay(&["-o", "ro,lowerdir=/l,rw", "/m"])
            .meaning
            .options
            .read_only
    );
    assert!(
        overlay(&["-o", "ro", "-o", "lowerdir=/l", "/m"])
            .meaning
            .options
            .read_only
    );
    assert_eq!(
        lowers(&overlay(&["-o", "lowerdir=/a,lowerdir=/b", "/m"])),
        ["/b"]
    );
}

#[test]
fn fsync_0_is_volatile() {
    let durability = |o: &str| overlay(&["-o", o, "/m"]).meaning.options.durability;
    assert_eq!(durability("fsync=0"), Durability::Volatile);
    assert_eq!(durability("fsync=1"), Durability::Full);
    assert_eq!(durability("volatile"), Durability::Volatile);
    assert_eq!(durability("ro"), Durability::Full);
}

#[test]
fn redirect_dir_off_still_follows_as_the_kernel_does() {
    let redirect = |o: &str| overlay(&["-o", o, "/m"]).meaning.options.redirect_dir;
    assert_eq!(redirect("redirect_dir=off"), RedirectDir::Follow);
    assert_eq!(redirect("redirect_dir=follow"), RedirectDir::Follow);
    assert_eq!(redirect("redirect_dir=nofollow"), RedirectDir::NoFollow);
    assert_eq!(redirect("ro"), RedirectDir::Auto);
}

#[test]
fn letters_of_fuse_overlayfs() {
    let call = overlay(&["-f", "-d", "-s", "-olowerdir=/l", "/m"]);
    assert!(call.foreground && call.debug);
    assert_eq!(call.meaning.options.threads, Some(1));
    assert!(overlay(&["--debug", "-o", "lowerdir=/l", "--", "/m"]).debug);
    assert!(matches!(
        parse(Dialect::FuseOverlayfs, &words(&["--version"])),
        Ok(Call::Version)
    ));
    assert!(matches!(
        parse(Dialect::FuseOverlayfs, &words(&["-V"])),
        Ok(Call::Version)
    ));
    assert!(matches!(
        parse(Dialect::FuseOverlayfs, &words(&["-h"])),
        Ok(Call::Help)
    ));
    assert!(matches!(
        parse(Dialect::FuseOverlayfs, &words(&["--help"])),
        Ok(Call::Help)
    ));
}

#[test]
fn wrong_calls_say_how_to_call_it_right() {
    let wrong = [
        &["-o", "lowerdir=/l"][..],
        &["-o"],
        &["a", "b", "c", "-o", "lowerdir=/l"],
        &["--frobnicate", "/m"],
        &["-o", "timeout=soon", "/m"],
        &["-o", "timeout=-1", "/m"],
        &["-o", "uidmapping=1:2", "/m"],
        &["-o", "xattr_permissions=7", "/m"],
        &["-o", "squash_to_uid=me", "/m"],
        &["-o", "upperdir", "/m"],
        &[],
    ];
    for args in wrong {
        let usage = parse(Dialect::FuseOverlayfs, &words(args)).unwrap_err();
        assert!(!usage.what.is_empty() && !usage.hint.is_empty(), "{args:?}");
    }
}

#[test]
fn paths_need_not_be_utf_8() {
    let mut text = b"lowerdir=/l\xff,upperdir=/u\xfe\\,x,workdir=/w".to_vec();
    let args = [
        OsString::from("-o"),
        OsString::from_vec(std::mem::take(&mut text)),
        OsString::from_vec(b"/m\xfd".to_vec()),
    ];
    let Ok(Call::Mount(call)) = parse(Dialect::FuseOverlayfs, &args) else {
        panic!("refused")
    };
    assert_eq!(
        call.meaning.options.upper.unwrap().as_os_str().as_bytes(),
        b"/u\xfe,x"
    );
    assert_eq!(call.mountpoint.as_os_str().as_bytes(), b"/m\xfd");
}

#[test]
fn a_bare_mount_call_is_told_from_a_command() {
    assert!(looks_like_a_mount(&words(&["-o", "lowerdir=/l", "/m"])));
    assert!(looks_like_a_mount(&words(&[
        "none",
        "/m",
        "-o",
        "lowerdir=/l"
    ])));
    assert!(!looks_like_a_mount(&words(&[
        "mount",
        "-o",
        "lowerdir=/l",
        "/m"
    ])));
    assert!(!looks_like_a_mount(&words(&["--version"])));
}

proptest! {
    #[test]
    fn any_bytes_are_understood_or_refused_but_never_panic(args in prop::collection::vec(prop::collection::vec(any::<u8>().prop_filter("no NUL in argv", |b| *b != 0), 0..40), 0..6)) {
        let args: Vec<OsString> = args.into_iter().map(OsString::from_vec).collect();
        for dialect in [Dialect::FuseOverlayfs, Dialect::MountFuse, Dialect::Helper] {
            let _understood = parse(dialect, &args).is_ok();
        }
    }

    #[test]
    fn option_text_made_of_the_hard_characters_never_panics(text in r#"(lowerdir=|lowerdir\+=|uidmapping=|context="|timeout=|[a-z0-9:,\\"=/.+-]){0,40}"#) {
        let args = [OsString::from("-o"), OsString::from(text), OsString::from("/m")];
        let _understood = parse(Dialect::FuseOverlayfs, &args).is_ok();
    }

    #[test]
    fn any_path_survives_escaping(names in prop::collection::vec(prop::collection::vec(1u8..=255, 1..20), 1..5)) {
        let escape = |name: &Vec<u8>| {
            let mut text = Vec::new();
            for byte in name {
                if matches!(byte, b'\\' | b':' | b',') {
                    text.push(b'\\');
                }
                text.push(*byte);
            }
            text
        };
        // A value in double quotes loses them; a path that begins so is escaped.
        prop_assume!(names.iter().all(|n| n[0] != b'"'));
        let mut text = b"lowerdir=".to_vec();
        text.extend(names.iter().map(escape).collect::<Vec<_>>().join(&b':'));
        let args = [OsString::from("-o"), OsString::from_vec(text), OsString::from("/m")];
        let Ok(Call::Mount(call)) = parse(Dialect::FuseOverlayfs, &args) else { panic!("refused") };
        let read: Vec<Vec<u8>> = call.meaning.options.lowers.iter().map(|l| l.path.as_os_str().as_bytes().to_vec()).collect();
        prop_assert_eq!(read, names);
    }
}

#[test]
fn options_of_every_command_may_stand_before_one_that_has_an_o_of_its_own() {
    let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
    for own in [
        "--root /s ws create x -l a -o metacopy=on",
        "-q --format=json --root=/s ws create x -o ro",
        "mount -o lowerdir=a m",
    ] {
        assert!(!looks_like_a_mount(&words(own)), "{own}");
    }
    for theirs in [
        "none /mnt -o lowerdir=a",
        "-o lowerdir=a /mnt",
        // The value of an option is no command.
        "--root -o a",
    ] {
        assert!(looks_like_a_mount(&words(theirs)), "{theirs}");
    }
}
