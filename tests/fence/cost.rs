//! What the fences cost, as a ratio of two mounts that are measured in turns, in one run.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::host::own_mounts;
use crate::support::story::require_real_root;
use crate::support::{Base, Layers, Mount};

const FILES: usize = 200;
const ROUNDS: usize = 60;

/// An operation on the `n`th of [`FILES`] names in a directory nine levels down, in the `round`th round.
type Act = fn(&Path, usize, usize);

const ACTS: [(&str, Act); 4] = [
    ("stat of a missing name", |d, round, n| {
        assert!(fs::metadata(d.join(format!("missing-{round}-{n}"))).is_err());
    }),
    ("create and write", |d, round, n| {
        fs::write(d.join(format!("new-{round}-{n}")), "text").unwrap();
    }),
    ("first read", |d, round, n| {
        assert_eq!(
            fs::read(d.join(format!("r{round}/f{n}"))).unwrap().len(),
            4096
        );
    }),
    ("unlink", |d, round, n| {
        fs::remove_file(d.join(format!("new-{round}-{n}"))).unwrap();
    }),
];

/// The mount goes before what it is made of.
struct Side {
    _mount: Mount,
    layers: Layers,
}

fn side(options: &str) -> Side {
    let layers = Layers::new(Base::Shm, 1);
    for round in 0..ROUNDS {
        let d = layers.lowers[0].join(format!("1/2/3/4/5/6/7/8/9/r{round}"));
        fs::create_dir_all(&d).unwrap();
        for n in 0..FILES {
            fs::write(d.join(format!("f{n}")), vec![b'x'; 4096]).unwrap();
        }
    }
    let mount = Mount::acetate(&layers, options);
    Side {
        _mount: mount,
        layers,
    }
}

fn timed(side: &Side, act: Act, round: usize) -> Duration {
    let dir = side.layers.at("1/2/3/4/5/6/7/8/9");
    let start = Instant::now();
    for n in 0..FILES {
        act(&dir, round, n);
    }
    start.elapsed()
}

/// Prints the table of src/fuse/fence.rs: `cargo test --release --test fence -- --ignored --nocapture`.
#[test]
#[ignore = "measures for a minute, and means something only on a quiet machine"]
fn what_the_fences_cost() {
    if !require_real_root() {
        return;
    }
    own_mounts();
    let (on, off) = (side(""), side("fence=off"));
    for (name, act) in ACTS {
        let (mut ratios, mut off_times) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            // In turns, and the first of each pair in turns too: what else the machine does meets both.
            let mut took = [0.0; 2];
            for i in 0..2 {
                let which = (i + round) % 2;
                took[which] = timed([&on, &off][which], act, round).as_secs_f64();
            }
            ratios.push(took[0] / took[1]);
            off_times.push(took[1] * 1e9 / FILES as f64);
        }
        let (ratio, each) = (median(ratios), median(off_times));
        println!("{name:<24} | {ratio:.3} | of {each:>6.0} ns");
        assert!(ratio < 1.3, "{name}: the fences cost too much");
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
