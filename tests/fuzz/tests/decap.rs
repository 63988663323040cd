//! The backend's loaded program against the oracle.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use fastrand::Rng;
use ipnet::IpNet;
use maglev_common::counters::DecapCounter;
use maglev_common::settings::Mss;
use maglev_dataplane::rig::Backend;
use maglev_fuzz::oracle::{Predicted, Verdict, decap};
use maglev_fuzz::packets;
use maglev_fuzz::world::DecapWorld;

const PACKETS: u32 = 200_000;

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Some addresses, and all: with them, only the address itself can be a reason to refuse a packet.
fn worlds() -> [DecapWorld; 2] {
    let world = |sources: &[&str], vips: &[&str]| DecapWorld {
        sources: nets(sources),
        vips: nets(vips),
        mss: Mss::Off,
        mtu: 65_536,
    };
    [
        world(
            &["10.64.0.0/16", "192.168.7.9/32", "fd64::/32"],
            &["203.0.113.10/32", "198.18.0.0/15", "2001:db8:113::/64", "2001:db8::5/128"],
        ),
        world(&["10.0.0.0/8", "fd00::/8"], &["0.0.0.0/0", "::/0"]),
    ]
}

/// The program's run on a frame, in the oracle's words.
fn run(backend: &mut Backend, before: &mut Vec<u64>, frame: &[u8]) -> Result<Predicted> {
    let mut bytes = Vec::new();
    let verdict = match backend.receive(frame, &mut bytes)? {
        1 => Verdict::Drop,
        2 => Verdict::Pass,
        other => anyhow::bail!("action {other}"),
    };
    let after = backend.counted();
    let counted = DecapCounter::ALL
        .iter()
        .zip(after.iter().zip(&*before))
        .flat_map(|(counter, (after, before))| std::iter::repeat_n(counter.name(), (after - before) as usize));
    let counted = counted.collect();
    *before = after;
    Ok(Predicted { verdict, bytes: (verdict == Verdict::Pass).then_some(bytes), counted })
}

#[test]
fn the_loaded_program_does_what_the_oracle_predicts() -> Result<()> {
    let mut seen = BTreeMap::<&str, u32>::new();
    let mut differences = BTreeMap::<String, (u32, String)>::new();
    for (n, world) in worlds().into_iter().enumerate() {
        let mut backend = Backend::load(&world.sources, &world.vips)?;
        let mut before = backend.counted();
        let mut rng = Rng::with_seed(n as u64);
        for _ in 0..PACKETS / 2 {
            let frame = packets::decap::frame(&mut rng, &world);
            let (predicted, got) = (decap(&world, &frame), run(&mut backend, &mut before, &frame)?);
            *seen.entry(predicted.counted[0]).or_default() += 1;
            if predicted != got {
                let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
                let key =
                    format!("{:?} {:?}, got {:?} {:?}", predicted.verdict, predicted.counted, got.verdict, got.counted);
                let entry = differences.entry(key).or_insert((0, hex.clone()));
                entry.0 += 1;
                if hex.len() < entry.1.len() {
                    entry.1 = hex;
                }
            }
        }
    }
    println!("{seen:?}");
    let lines: Vec<_> = differences.iter().map(|(what, (times, frame))| format!("{times} × {what}: {frame}")).collect();
    ensure!(lines.is_empty(), "predicted otherwise:\n{}", lines.join("\n"));
    let never: Vec<_> = DecapCounter::ALL
        .iter()
        .filter(|counter| !matches!(counter, DecapCounter::NoRoom | DecapCounter::MssLowered))
        .filter(|counter| seen.get(counter.name()).copied().unwrap_or(0) < 500)
        .collect();
    ensure!(never.is_empty(), "seldom met: {never:?} of {seen:?}");
    Ok(())
}
