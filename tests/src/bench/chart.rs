//! The picture of the main comparison, as SVG: per scenario a bar for each program, as a multiple of the *headers*
//! floor, with its p10 and p90.

use std::fmt::Write as _;

use super::report::{Report, Row};
use super::stats::Spread;

const WIDTH: f64 = 960.0;
/// Where the bars begin: scenario titles stand left of it.
const LEFT: f64 = 290.0;
/// Room right of the longest bar for its figure.
const RIGHT: f64 = 150.0;
const TOP: f64 = 112.0;
const BAR: f64 = 15.0;
const GAP: f64 = 14.0;
const BOTTOM: f64 = 64.0;

/// The programs drawn and their colours; further objects take the last.
const COLOURS: [(&str, &str); 6] = [
    ("headers", "#9aa5b1"),
    ("headers+line", "#616e7c"),
    ("table only", "#9fd8c3"),
    ("by exception", "#0b6e4f"),
    ("5 % moving", "#3f8fc0"),
    ("always", "#d17a22"),
];
const FURTHER: &str = "#5b4b8a";
const INK: &str = "#1f2933";
const FAINT: &str = "#d9dee3";

/// Draws it.
pub(super) fn draw(report: &Report) -> String {
    let groups = groups(report);
    let bars: usize = groups.iter().map(|group| group.bars.len()).sum();
    let plot = bars as f64 * BAR + groups.len() as f64 * GAP;
    let height = TOP + plot + BOTTOM;
    // By the medians: one noisy row's whisker, cut off at the edge, must not shrink all bars.
    let longest = 1.15 * groups.iter().flat_map(|group| &group.bars).map(|bar| bar.ratio.median).fold(1.0, f64::max);
    let scale = Scale { longest, pixels: WIDTH - LEFT - RIGHT };
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"{INK}\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"
    );
    text(&mut svg, 24.0, 34.0, "start", 18, "Time per packet, as a multiple of writing the outer header alone");
    let subtitle = format!(
        "less the empty program; median of {} interleaved rounds, whiskers p10 to p90; shorter is better",
        report.rounds
    );
    text(&mut svg, 24.0, 56.0, "start", 13, &subtitle);
    legend(&mut svg, &groups);
    grid(&mut svg, scale, plot);
    let mut y = TOP;
    for group in &groups {
        let middle = y + group.bars.len() as f64 * BAR / 2.0 + 4.0;
        text(&mut svg, LEFT - 12.0, middle, "end", 13, &group.title);
        for bar in &group.bars {
            draw_bar(&mut svg, scale, y, bar);
            y += BAR;
        }
        y += GAP;
    }
    let machine = &report.machine;
    let place = format!("{}, kernel {}; {}", machine.cpu, machine.kernel, machine.spectre_v2);
    text(&mut svg, 24.0, height - 18.0, "start", 11, &place);
    svg.push_str("</svg>\n");
    svg
}

struct Group {
    title: String,
    bars: Vec<Bar>,
}

struct Bar {
    program: String,
    ratio: Spread,
    nanoseconds: f64,
}

#[derive(Clone, Copy)]
struct Scale {
    longest: f64,
    pixels: f64,
}

impl Scale {
    fn x(self, ratio: f64) -> f64 {
        LEFT + ratio.clamp(0.0, self.longest) / self.longest * self.pixels
    }
}

/// What is not drawn: floors that no load balancer can come near or that differ little from others, and a pool that is
/// nowhere settled, which is no way to run one.
const LEFT_OUT: [&str; 3] = ["transmit", "headers+flow line", "all moving"];

/// The drawn programs.
fn groups(report: &Report) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for Row { title, program, to_headers, nanoseconds, .. } in &report.rows {
        let Some(ratio) = to_headers.filter(|_| !LEFT_OUT.contains(&program.as_str())) else { continue };
        let bar = Bar { program: program.clone(), ratio, nanoseconds: nanoseconds.median };
        match groups.last_mut().filter(|group| group.title == *title) {
            Some(group) => group.bars.push(bar),
            None => groups.push(Group { title: title.clone(), bars: vec![bar] }),
        }
    }
    groups
}

fn colour(program: &str) -> &'static str {
    COLOURS.iter().find(|(name, _)| *name == program).map_or(FURTHER, |(_, colour)| colour)
}

fn legend(svg: &mut String, groups: &[Group]) {
    let mut x = LEFT;
    for bar in groups.iter().max_by_key(|group| group.bars.len()).map_or(&[][..], |group| &group.bars) {
        let fill = colour(&bar.program);
        let _ = writeln!(svg, "<rect x=\"{x}\" y=\"74\" width=\"12\" height=\"12\" fill=\"{fill}\"/>");
        text(svg, x + 18.0, 85.0, "start", 13, &bar.program);
        x += 38.0 + 8.0 * bar.program.len() as f64;
    }
}

fn grid(svg: &mut String, scale: Scale, plot: f64) {
    let step = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0].into_iter().find(|step| scale.longest / step <= 10.0).unwrap_or(50.0);
    let mut ratio = 0.0;
    while ratio <= scale.longest {
        let (x, end) = (scale.x(ratio), TOP + plot);
        let _ = writeln!(svg, "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{end:.1}\" stroke=\"{FAINT}\"/>");
        text(svg, x, end + 16.0, "middle", 12, &format!("{ratio}×"));
        ratio += step;
    }
}

fn draw_bar(svg: &mut String, scale: Scale, y: f64, Bar { program, ratio, nanoseconds }: &Bar) {
    let (end, low, high) = (scale.x(ratio.median), scale.x(ratio.p10), scale.x(ratio.p90));
    let (width, height, middle, fill) = (end - LEFT, BAR - 3.0, y + BAR / 2.0 - 1.5, colour(program));
    let _ = writeln!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{fill}\"/>\n\
         <path d=\"M{low:.1} {middle:.1}H{high:.1}M{low:.1} {:.1}v6M{high:.1} {:.1}v6\" stroke=\"{INK}\" fill=\"none\"/>",
        middle - 3.0,
        middle - 3.0
    );
    let figure = format!("{:.2}×  {nanoseconds:.0} ns", ratio.median);
    text(svg, end.max(high) + 8.0, y + BAR - 4.0, "start", 11, &figure);
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, size: u8, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ =
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{words}</text>");
}
