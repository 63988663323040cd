//! Checks in `services.yaml`: how they are read and written. It must not know how a check is made.

use std::fmt::{Display, Write as _};
use std::net::Ipv6Addr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::http::uri::PathAndQuery;
use maglev_model::{BadValue, Check, Hysteresis, Name, Override, PoolHealth, Probe, RCODES, Request, WrittenDuration};
use maglev_model::{
    Tls, Via, is_dns_name, parse_duration, parse_on_all_dead, parse_panic, parse_slow_start, server_name, shown,
};

use super::check_keys::{COMMON, OF_KINDS};
use super::decode::{Collector, Field, Section};
use super::tree;

const INTERVAL: Duration = Duration::from_secs(2);
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
const MOST_IN_A_ROW: u32 = 100;
const LONGEST_TEXT: usize = 1_024;

/// Reads a pool's health settings. `overrides` are those of its backends.
pub(super) fn decode_health(pool: &Section<'_>) -> Option<PoolHealth> {
    let default = PoolHealth::default();
    let check = match pool.get("check") {
        Some(check) => Some(Arc::new(decode_check(&check)?)),
        None => None,
    };
    let needs_check = |key: &str| {
        let field = pool.get(key)?;
        if check.is_none() {
            field.report("has no effect without a check; give the pool a `check`, or remove it");
        }
        Some(field)
    };
    let panic = needs_check("panic").map_or(Some(default.panic), |field| field.parse(parse_panic));
    let slow_start = needs_check("slow_start");
    let slow_start = slow_start.map_or(Some(default.slow_start), |field| field.parse(parse_slow_start));
    let on_all_dead = needs_check("on_all_dead");
    let on_all_dead = on_all_dead.map_or(Some(default.on_all_dead), |field| field.parse(parse_on_all_dead));
    let overrides = decode_overrides(pool, check.as_deref());
    Some(PoolHealth { check, overrides, panic: panic?, slow_start: slow_start?, on_all_dead: on_all_dead? })
}

/// Reads a check as it stands in `services.yaml`, with or without its braces: `kind: http, path: /healthz`.
///
/// # Errors
/// All its errors, one per line, with the field.
pub fn parse_check(text: &str) -> Result<Check, Vec<String>> {
    parse_alone(text, decode_check)
}

/// Reads the override of a check for one backend: `port: 8080`.
///
/// # Errors
/// As [`parse_check`].
pub fn parse_override(text: &str) -> Result<Override, Vec<String>> {
    parse_alone(text, decode_override)
}

fn parse_alone<T>(text: &str, decode: fn(&Field<'_>) -> Option<T>) -> Result<T, Vec<String>> {
    let text = text.trim();
    let text = if text.starts_with('{') { text.to_owned() } else { format!("{{ {text} }}") };
    let file = Path::new("check");
    let root = tree::parse(file, &text).map_err(|problem| vec![format!("check: {}", problem.message)])?;
    let out = Collector::new(file);
    let decoded = decode(&Field::named("check", &root, &out));
    let problems: Vec<_> =
        out.finish().iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect();
    decoded.filter(|_| problems.is_empty()).ok_or(problems)
}

/// A check as `services.yaml` holds it, without braces.
pub fn check_text(check: &Check) -> String {
    fields(check).join(", ")
}

/// The overrides of single backends.
fn decode_overrides(pool: &Section<'_>, check: Option<&Check>) -> std::collections::BTreeMap<Name, Override> {
    let mut overrides = std::collections::BTreeMap::new();
    for item in pool.get("backends").iter().filter_map(Field::list).flatten() {
        // Other errors of the backend are reported where it is decoded.
        let Some((name, field)) = item.peek("name").zip(item.peek("check")) else { continue };
        let Some(check) = check else {
            field.report("has no effect without a check; give the pool a `check`, or remove it");
            continue;
        };
        if let (Some(name), Some(different)) = (name.parse(Name::parse), decode_override(&field)) {
            match different.misfit(check) {
                Some(key) => field
                    .peek(key)
                    .unwrap_or(field)
                    .report(format_args!("not a key of a {} check; allowed: port", check.probe.kind())),
                None => drop(overrides.insert(name, different)),
            }
        }
    }
    overrides
}

fn decode_override(field: &Field<'_>) -> Option<Override> {
    let section = field.section(&["port", "path", "host"], &[])?;
    let optional = |key, parse: fn(&str) -> Result<String, BadValue>| match section.get(key) {
        Some(field) => field.parse(parse).map(Some),
        None => Some(None),
    };
    Some(Override {
        port: decode_port(&section)?,
        path: optional("path", parse_path)?,
        host: optional("host", parse_host)?,
    })
}

fn decode_check(field: &Field<'_>) -> Option<Check> {
    let known: Vec<&str> = COMMON.into_iter().chain(OF_KINDS).collect();
    let section = field.section(&known, &[])?;
    let kind = section.need("kind", &format!("one of {}", Probe::KINDS.join(", ")));
    let probe = kind.and_then(|kind| decode_probe(&kind, &section));
    let duration = |key: &str, default: Duration, what: &'static str, range: RangeInclusive<Duration>| {
        section.get(key).map_or(Some(default), |field| field.parse(|text| within(text, what, range)))
    };
    let interval = duration("interval", INTERVAL, "an interval", INTERVALS);
    let usual = interval.unwrap_or(INTERVAL);
    let timeout = duration("timeout", part(usual, 2).min(Duration::from_secs(1)), "a timeout", TIMEOUTS);
    let jitter = duration("jitter", part(usual, 10), "a jitter", Duration::ZERO..=usual / 2);
    let count = |key: &str, default: u32| section.get(key).map_or(Some(default), |field| field.parse(parse_in_a_row));
    let Hysteresis { fall, rise } = Hysteresis::default();
    let (fall, rise) = (count("fall", fall), count("rise", rise));
    let (port, via) = (decode_port(&section), decode_via(&section));
    let (interval, timeout) = (interval?, timeout?);
    if timeout >= interval {
        let (timeout, interval) = (WrittenDuration(timeout), WrittenDuration(interval));
        let at = section.get("timeout").or_else(|| section.get("interval"));
        let message = format!(
            "a timeout of {timeout} with an interval of {interval}; allowed: a timeout shorter than the interval"
        );
        at.map_or_else(|| section.report(&message), |field| field.report(&message));
        return None;
    }
    let hysteresis = Hysteresis { fall: fall?, rise: rise? };
    Some(Check { probe: probe?, interval, timeout, jitter: jitter?, hysteresis, port: port?, via: via? })
}

/// In whole milliseconds, the unit in which durations are written.
fn part(whole: Duration, of: u64) -> Duration {
    Duration::from_millis(u64::try_from(whole.as_millis()).unwrap_or(u64::MAX) / of)
}

fn decode_port(section: &Section<'_>) -> Option<Option<NonZeroU16>> {
    let Some(field) = section.get("port") else { return Some(None) };
    field
        .parse(|text| {
            text.parse::<NonZeroU16>().map_err(|_| format!("{} is not a port; allowed: 1 to 65535", shown(text)))
        })
        .map(Some)
}

/// The path of client packets by default.
fn decode_via(section: &Section<'_>) -> Option<Via> {
    let direct = section.get("via").map_or(Some(false), |field| {
        field.parse(|text| match text {
            "encap" => Ok(false),
            "direct" => Ok(true),
            _ => Err(format!("{} is not a check path; allowed: encap, direct", shown(text))),
        })
    })?;
    match section.get("vip") {
        Some(vip) if direct => {
            vip.report("applies only to `via: encap`; remove it");
            None
        }
        Some(vip) => Some(Via::Encap { vip: Some(vip.parse(Name::parse)?) }),
        None if direct => Some(Via::Direct),
        None => Some(Via::Encap { vip: None }),
    }
}

fn decode_probe(kind: &Field<'_>, section: &Section<'_>) -> Option<Probe> {
    let kind = kind.parse(|text| match Probe::KINDS.into_iter().find(|kind| *kind == text) {
        Some(kind) => Ok(kind),
        None => Err(format!("{} is not a kind of check; allowed: {}", shown(text), Probe::KINDS.join(", "))),
    })?;
    let keys: &[&str] = match kind {
        "http" => &["path", "status", "body", "host"],
        "https" => &["path", "status", "body", "host", "sni", "verify"],
        "udp" => &["payload", "expect"],
        "dns" => &["query", "rcode"],
        _ => &[],
    };
    let mut fits = true;
    for key in OF_KINDS.into_iter().filter(|key| *key != "vip" && !keys.contains(key)) {
        if let Some(field) = section.get(key) {
            let allowed = if keys.is_empty() { "none beside those of every check".to_owned() } else { keys.join(", ") };
            field.report(format_args!("not a key of a {kind} check; allowed: {allowed}"));
            fits = false;
        }
    }
    let probe = match kind {
        "http" => decode_request(section).map(Probe::Http),
        "https" => {
            let request = decode_request(section);
            let tls = decode_tls(section, request.as_ref().and_then(|request| request.host.as_deref()));
            request.zip(tls).map(|(request, tls)| Probe::Https(request, tls))
        }
        "udp" => decode_udp(section),
        "dns" => decode_dns(section),
        _ => Some(Probe::Tcp),
    };
    probe.filter(|_| fits)
}

fn decode_request(section: &Section<'_>) -> Option<Request> {
    let path = section.get("path").map_or(Some("/".to_owned()), |field| field.parse(parse_path));
    let status = section.get("status").map_or(Some(200..=299), |field| field.parse(parse_status));
    let host = optional(section, "host", parse_host);
    let body = optional(section, "body", parse_text);
    Some(Request { path: path?, host: host?, status: status?, body: body? })
}

/// The server's name: the one given, or else the host of the request.
fn decode_tls(section: &Section<'_>, host: Option<&str>) -> Option<Tls> {
    let verify = section.get("verify").map_or(Some(true), |field| field.boolean());
    let (name, of_host) = match (section.get("sni"), section.get("host")) {
        (Some(sni), _) => (sni.parse(parse_server_name), false),
        // Its errors were reported where the request is read.
        (None, Some(_)) => (host.and_then(server_name).map(str::to_owned), true),
        (None, None) => {
            section.report("an https check needs a server's name; set `sni`, or `host`");
            return None;
        }
    };
    Some(Tls { name: name?, of_host, verify: verify? })
}

fn decode_udp(section: &Section<'_>) -> Option<Probe> {
    let bytes = |field: Field<'_>| field.parse(parse_text).map(String::into_bytes);
    let payload = section.need("payload", "the payload to send").and_then(bytes);
    let expect = section.need("expect", "the first bytes of the answer").and_then(bytes);
    Some(Probe::Udp { payload: payload?, expect: expect? })
}

fn decode_dns(section: &Section<'_>) -> Option<Probe> {
    let query = section.need("query", "the name to query, such as example.org");
    let query = query.and_then(|field| {
        field.parse(|text| {
            let bad = || format!("{} is not a name that can be queried; allowed: such as example.org", shown(text));
            if is_dns_name(text) { Ok(text.to_owned()) } else { Err(bad()) }
        })
    });
    let rcode = section.get("rcode").map_or(Some(0), |field| {
        field.parse(|text| {
            let found = RCODES.iter().position(|name| *name == text).and_then(|at| u8::try_from(at).ok());
            found.ok_or_else(|| format!("{} is not a response code; allowed: {}", shown(text), RCODES.join(", ")))
        })
    });
    Some(Probe::Dns { query: query?, rcode: rcode? })
}

fn optional<T>(section: &Section<'_>, key: &str, parse: fn(&str) -> Result<T, BadValue>) -> Option<Option<T>> {
    match section.get(key) {
        Some(field) => field.parse(parse).map(Some),
        None => Some(None),
    }
}

fn within(text: &str, what: &str, range: RangeInclusive<Duration>) -> Result<Duration, BadValue> {
    parse_duration(text).filter(|duration| range.contains(duration)).ok_or_else(|| {
        let (least, most) = (WrittenDuration(*range.start()), WrittenDuration(*range.end()));
        BadValue(format!("{} is not {what}; allowed: {least} to {most}, with a unit such as 500ms or 2s", shown(text)))
    })
}

fn parse_in_a_row(text: &str) -> Result<u32, BadValue> {
    text.parse().ok().filter(|number| (1..=MOST_IN_A_ROW).contains(number)).ok_or_else(|| {
        BadValue(format!("{} is not a number of checks in a row; allowed: 1 to {MOST_IN_A_ROW}", shown(text)))
    })
}

/// A path that can be requested. A fragment is never sent.
fn parse_path(text: &str) -> Result<String, BadValue> {
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    let asked = || PathAndQuery::try_from(text).is_ok();
    if text.starts_with('/') && plain && text.len() <= LONGEST_TEXT && asked() {
        return Ok(text.to_owned());
    }
    let text = shown(text);
    Err(BadValue(format!(
        "{text} is not a path; allowed: such as /healthz or /healthz?deep=no, without spaces, # and what URLs encode"
    )))
}

/// Any server's name, with or without a port.
fn parse_host(text: &str) -> Result<String, BadValue> {
    if server_name(text).is_some() {
        return Ok(text.to_owned());
    }
    let allowed = "such as www.example.org, www.example.org:8080 or [2001:db8::1]:8080";
    Err(BadValue(format!("{} is not a host; allowed: {allowed}", shown(text))))
}

/// A host may have a port; a server's name has none.
fn parse_server_name(text: &str) -> Result<String, BadValue> {
    let bare = text.parse::<Ipv6Addr>().is_ok().then_some(text);
    let allowed = "such as www.example.org, 192.0.2.1 or 2001:db8::1";
    let name = bare.or_else(|| server_name(text));
    name.map(str::to_owned)
        .ok_or_else(|| BadValue(format!("{} is not a server's name; allowed: {allowed}", shown(text))))
}

fn parse_text(text: &str) -> Result<String, BadValue> {
    if text.len() <= LONGEST_TEXT {
        return Ok(text.to_owned());
    }
    Err(BadValue(format!("{} bytes; allowed: at most {LONGEST_TEXT}", text.len())))
}

/// `200`, or `200-399`.
fn parse_status(text: &str) -> Result<RangeInclusive<u16>, BadValue> {
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.parse().ok().filter(|status| (100..=599).contains(status));
    match (status(least), status(most)) {
        (Some(least), Some(most)) if least <= most => Ok(least..=most),
        _ => Err(BadValue(format!("{} is not a status; allowed: 100 to 599, or a range such as 200-399", shown(text)))),
    }
}

/// The lines of a pool.
pub(super) fn write_health(text: &mut String, health: &PoolHealth) -> std::fmt::Result {
    let PoolHealth { check, overrides: _, panic, slow_start, on_all_dead } = health;
    let Some(check) = check else { return Ok(()) };
    writeln!(text, "    check: {{ {} }}", fields(check).join(", "))?;
    let default = PoolHealth::default();
    if *panic != default.panic {
        writeln!(text, "    panic: {}", panic.0)?;
    }
    if *slow_start != default.slow_start {
        writeln!(text, "    slow_start: {}", WrittenDuration(*slow_start))?;
    }
    if *on_all_dead != default.on_all_dead {
        writeln!(text, "    on_all_dead: {}", on_all_dead.as_str())?;
    }
    Ok(())
}

/// The part of a backend.
pub(super) fn write_override(text: &mut String, health: &PoolHealth, backend: &Name) -> std::fmt::Result {
    let Some(Override { port, path, host }) = health.overrides.get(backend) else { return Ok(()) };
    let fields = [
        port.map(|port| field("port", port)),
        path.as_ref().map(|path| field("path", quoted(path))),
        host.as_ref().map(|host| field("host", quoted(host))),
    ];
    write!(text, ", check: {{ {} }}", fields.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

/// The whole check, defaults included: the defaults may change in a later release.
fn fields(check: &Check) -> Vec<String> {
    let Check { probe, interval, timeout, jitter, hysteresis: Hysteresis { fall, rise }, port, via } = check;
    let mut fields = vec![field("kind", probe.kind())];
    match probe {
        Probe::Tcp => {}
        Probe::Http(request) => fields.extend(request_fields(request)),
        Probe::Https(request, Tls { name, of_host, verify }) => {
            fields.extend(request_fields(request));
            fields.extend((!of_host).then(|| field("sni", quoted(name))));
            fields.push(field("verify", verify));
        }
        Probe::Udp { payload, expect } => {
            let of_bytes = |bytes: &[u8]| quoted(&String::from_utf8_lossy(bytes));
            fields.extend([field("payload", of_bytes(payload)), field("expect", of_bytes(expect))]);
        }
        Probe::Dns { query, rcode } => {
            let rcode = RCODES.get(usize::from(*rcode)).copied().unwrap_or_default();
            fields.extend([field("query", quoted(query)), field("rcode", rcode)]);
        }
    }
    fields.extend([field("interval", WrittenDuration(*interval)), field("timeout", WrittenDuration(*timeout))]);
    fields.extend([field("jitter", WrittenDuration(*jitter)), field("fall", fall), field("rise", rise)]);
    fields.extend(port.map(|port| field("port", port)));
    match via {
        Via::Direct => fields.push(field("via", "direct")),
        Via::Encap { vip } => {
            fields.push(field("via", "encap"));
            fields.extend(vip.as_ref().map(|vip| field("vip", quoted(vip.as_str()))));
        }
    }
    fields
}

fn request_fields(Request { path, host, status, body }: &Request) -> Vec<String> {
    let mut fields = vec![field("path", quoted(path))];
    fields.extend(host.as_ref().map(|host| field("host", quoted(host))));
    fields.push(field("status", format_args!("\"{}-{}\"", status.start(), status.end())));
    fields.extend(body.as_ref().map(|body| field("body", quoted(body))));
    fields
}

fn field(key: &str, value: impl Display) -> String {
    format!("{key}: {value}")
}

/// In double quotes (YAML 1.2, section 5.7); all characters but plain letters, digits and signs are escaped by number.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        // Writing to a string cannot fail.
        let _ = match c {
            '"' | '\\' => write!(quoted, "\\{c}"),
            c if c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric() => write!(quoted, "{c}"),
            c => write!(quoted, "\\U{:08X}", u32::from(c)),
        };
    }
    quoted.push('"');
    quoted
}
