//! Datagrams that arrive in fragments: whole whatever CPU their fragments reach, as long as the first one comes first; and floods of
//! first fragments, from which nothing else suffers.

use std::{
    net::{IpAddr, SocketAddr, SocketAddrV4, UdpSocket},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use maglev_e2e::{
    bytes,
    client::flood::{Flags, Flood},
    lab::{
        Backend, FLOWS_CPU, Lab, Services, Site, Vip,
        addresses::{self, ALT4, ALT6, WWW4, WWW6},
        site::counter,
        skip,
    },
    matrix::{Matrix, is_full},
};

/// Each VIP with two backends behind the router, and the address by which they are reached.
const VIPS: [(&str, IpAddr, IpAddr); 4] =
    [("4in4", WWW4, WWW4), ("6in4", WWW6, WWW4), ("4in6", ALT4, WWW6), ("6in6", ALT6, WWW6)];
const LENGTHS: [usize; 2] = [4_000, 60_000];
/// How many datagrams of each length a case has that the kernel does not cut.
const ROUNDS: usize = 10;
/// How long an answer that must come is awaited, and one that must not.
const PATIENCE: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(300);

fn services(lab: &Lab) -> Services {
    let mut services = Services::default();
    for (name, vip, like) in VIPS {
        services.pools.push(lab.pool(name, like, &[(1, 100), (2, 100)]));
        for protocol in ["tcp", "udp"] {
            services.vips.push(Vip::new(&format!("{name}-{protocol}"), (vip, Backend::PORT), protocol, name));
        }
    }
    services
}

fn count(site: &Site, name: &str) -> Result<u64> {
    counter(&site.balancers[0].maglev_json(&["counters"])?, name)
}

/// The lengths of a case's datagrams.
fn all_lengths() -> impl Iterator<Item = usize> {
    LENGTHS.into_iter().cycle().take(LENGTHS.len() * if is_full() { ROUNDS } else { 1 })
}

fn at(vip: IpAddr) -> SocketAddr {
    SocketAddr::new(vip, Backend::PORT)
}

#[test]
fn datagrams_arrive_whole_if_their_first_fragment_comes_first() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let _alone = alone();
    let mut site = Site::new(1, services)?;
    let client = site.lab.client().clone();
    // IPv6 routers cut no packets: the answer by which a backend learns the MTU of the client's link would be lost.
    for n in [1, 2] {
        let router = addresses::behind_router(n, 1);
        let route = |gateway: IpAddr| format!("route replace default via {gateway} mtu 1500");
        site.lab
            .netns(&format!("web{n}"))
            .ip(&[route(router.v4.into()), route(router.v6.into()).replace("default", "::/0")])?;
    }
    let mut number = 7;
    let mut next = || {
        number += 1;
        number
    };
    let other = usize::from(std::thread::available_parallelism()?.get() > 1);
    for (name, vip, _) in VIPS {
        Matrix::Packets.row("fragments", &format!("the first one on a CPU, the others on another, {name}"), || {
            for length in all_lengths() {
                let datagram = client.fragmented(at(vip), length, next())?;
                let before = count(&site, "fragment_noted")?;
                datagram.send([0])?;
                let is_noted = |counters: &_| counter(counters, "fragment_noted").is_ok_and(|noted| noted > before);
                site.balancers[0].await_answer("the first fragment", &["counters"], is_noted)?;
                site.lab.carry_flows_on(other)?;
                datagram.send(1..datagram.fragments())?;
                datagram.answer(PATIENCE)?.with_context(|| format!("{length} bytes: not answered"))?;
                site.lab.carry_flows_on(FLOWS_CPU)?;
            }
            Ok(format!("{} datagrams of 4,000 and 60,000 bytes answered", all_lengths().count()))
        })?;
        Matrix::Packets.row("fragments", &format!("in reverse order behind the first, {name}"), || {
            for length in all_lengths() {
                let datagram = client.fragmented(at(vip), length, next())?;
                datagram.send([0].into_iter().chain((1..datagram.fragments()).rev()))?;
                datagram.answer(PATIENCE)?.with_context(|| format!("{length} bytes: not answered"))?;
            }
            Ok(format!("{} datagrams of 4,000 and 60,000 bytes answered", all_lengths().count()))
        })?;
        Matrix::Packets.row("fragments", &format!("one before the first is lost and counted, {name}"), || {
            let before = count(&site, "fragment_unknown")?;
            for length in all_lengths() {
                let datagram = client.fragmented(at(vip), length, next())?;
                datagram.send([1, 0].into_iter().chain(2..datagram.fragments()))?;
                let (answered, lost) = (datagram.answer(SILENCE)?, count(&site, "fragment_unknown")? - before);
                ensure!(
                    answered.is_none(),
                    "{length} bytes: answered without its second fragment, {lost} counted so far"
                );
            }
            let lost = count(&site, "fragment_unknown")? - before;
            ensure!(lost == all_lengths().count() as u64, "{lost} counted");
            Ok(format!("{lost} datagrams, fragment_unknown {lost}"))
        })?;
    }
    // Last, as the kernel chooses their identifications: one may be that of a datagram above.
    for (name, vip, _) in VIPS {
        for length in LENGTHS {
            Matrix::Packets.row("fragments", &format!("20 datagrams of {length} bytes, {name}"), || {
                let before = count(&site, "fragment_noted")?;
                site.lab.netns("client").run(|| (0..20).try_for_each(|_| echoed(at(vip), length)))?;
                let noted = count(&site, "fragment_noted")? - before;
                ensure!(noted == 20, "{noted} came in fragments");
                Ok("all answered".to_owned())
            })?;
        }
    }
    Ok(())
}

/// One test at a time: a flood fills the queues that the kernel has for each CPU, whatever namespace its packets are in.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends a datagram that the kernel cuts, and awaits its answer.
fn echoed(target: SocketAddr, length: usize) -> Result<()> {
    let any: IpAddr = if target.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let payload = bytes::block(length);
    socket.send(&payload).context("send")?;
    let mut answer = vec![0; 64 * 1024];
    let received = socket.recv(&mut answer).context("no answer")?;
    ensure!(answer[..received].ends_with(&payload), "{received} other bytes");
    Ok(())
}

#[test]
fn first_fragments_without_end_harm_only_fragments() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let _alone = alone();
    let site = Site::new(1, services)?;
    let client = site.lab.client();
    Matrix::Packets.row("fragments", "first fragments at the generator's top rate beside TCP and UDP", || {
        let flood = Flood { flags: Flags::Fragment, first: 0, tuples: 400_000, passes: 1 };
        let IpAddr::V4(vip) = WWW4 else { bail!("not an IPv4 address") };
        let flood = client.flood(SocketAddrV4::new(vip, Backend::PORT), flood);
        let stream = client.stream(&[at(WWW4), at(WWW6)], 500);
        let traffic = client.start(&[at(WWW4), at(WWW6)], u64::MAX, 4);
        let flooded = flood.finish()?;
        let (outcomes, streamed) = (traffic.stop()?, stream.finish()?);
        outcomes.all_answered()?;
        streamed.none_lost()?;
        let (limited, noted) = (count(&site, "fragment_limit")?, count(&site, "fragment_noted")?);
        ensure!(limited > 0, "no fragment was over the limit");
        let rate = flooded.packets as f64 / flooded.took.as_secs_f64();
        Ok(format!(
            "{rate:.0}/s, {noted} noted, {limited} over the limit; {} requests and {} datagrams, 0 lost",
            outcomes.0.len(),
            streamed.sent,
        ))
    })
}
