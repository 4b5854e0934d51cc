//! Figures as SVG.

use std::path::Path;

use plotters::{coord::Shift, prelude::*};

const COLOURS: [RGBColor; 3] = [RGBColor(0x1f, 0x6f, 0xb4), RGBColor(0xe0, 0x8a, 0x1e), RGBColor(0x9a, 0x9a, 0x9a)];
const FONT: (&str, i32) = ("sans-serif", 14);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A row of stacked parts, from left to right.
pub struct Bar {
    pub label: String,
    pub parts: Vec<f64>,
}

/// A line through points.
pub struct Line {
    pub label: String,
    pub points: Vec<(f64, f64)>,
}

/// One chart among others.
pub struct Panel {
    pub title: String,
    pub lines: Vec<Line>,
}

/// Draws one bar below the other, each with its parts in the order of `parts`.
pub fn bars(file: &Path, title: &str, parts: &[&str], bars: &[Bar]) {
    let size = (900, 110 + 34 * bars.len() as u32);
    let root = SVGBackend::new(file, size).into_drawing_area();
    root.fill(&WHITE).expect("a drawing");
    let (head, body) = root.split_vertically(62);
    head.titled(title, ("sans-serif", 18)).expect("a title");
    keys(&head, (250, 42), parts);
    let longest = bars.iter().map(|bar| bar.parts.iter().sum()).fold(f64::MIN_POSITIVE, f64::max);
    let rows = bars.len() as f64;
    let mut chart = ChartBuilder::on(&body)
        .margin_right(24)
        .x_label_area_size(28)
        .y_label_area_size(242)
        .build_cartesian_2d(0.0..longest * 1.05, 0.0..rows)
        .expect("a chart");
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .y_labels(0)
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|x| format!("{x}"))
        .label_style(FONT)
        .draw()
        .expect("a mesh");
    for (at, bar) in bars.iter().enumerate() {
        let bottom = rows - at as f64 - 0.85;
        let mut from = 0.0;
        for (part, colour) in bar.parts.iter().zip(COLOURS) {
            let corners = [(from, bottom), (from + part, bottom + 0.7)];
            chart.draw_series([Rectangle::new(corners, colour.filled())]).expect("a bar");
            from += part;
        }
        let (x, y) = chart.backend_coord(&(0.0, bottom + 0.35));
        let style = FONT.into_text_style(&root).pos(right_middle());
        root.draw_text(&bar.label, &style, (x - 8, y)).expect("a label");
    }
    root.present().expect("a file");
}

/// Draws charts side by side over one logarithmic axis. All charts have the same lines.
pub fn lines(file: &Path, axis: &str, panels: &[Panel]) {
    let size = (360 * panels.len() as u32, 340);
    let root = SVGBackend::new(file, size).into_drawing_area();
    root.fill(&WHITE).expect("a drawing");
    let (head, body) = root.split_vertically(24);
    let names: Vec<&str> =
        panels.iter().take(1).flat_map(|panel| &panel.lines).map(|line| line.label.as_str()).collect();
    keys(&head, (68, 8), &names);
    for (area, panel) in body.split_evenly((1, panels.len())).iter().zip(panels) {
        chart(area, axis, panel);
    }
    root.present().expect("a file");
}

/// Draws the legend of the colours, in a row.
fn keys(area: &Area<'_>, (left, top): (i32, i32), names: &[&str]) {
    for (at, (name, colour)) in names.iter().zip(COLOURS).enumerate() {
        let left = left + 160 * at as i32;
        area.draw(&Rectangle::new([(left, top), (left + 14, top + 12)], colour.filled())).expect("a key");
        area.draw_text(name, &FONT.into_text_style(area), (left + 20, top - 1)).expect("its name");
    }
}

fn chart(area: &Area<'_>, axis: &str, panel: &Panel) {
    let points = || panel.lines.iter().flat_map(|line| &line.points);
    let (least, most) = points().fold((f64::MAX, f64::MIN), |(least, most), (x, _)| (least.min(*x), most.max(*x)));
    let highest = points().map(|(_, y)| *y).filter(|y| y.is_finite()).fold(1e-3, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 16))
        .margin(10)
        .margin_right(24)
        .x_label_area_size(42)
        .y_label_area_size(58)
        .build_cartesian_2d((least..most.max(least * 1.01)).log_scale(), 0.0..highest * 1.15)
        .expect("a chart");
    chart
        .configure_mesh()
        .x_desc(axis)
        .y_labels(6)
        .x_labels(6)
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&short)
        .y_label_formatter(&short)
        .label_style(FONT)
        .draw()
        .expect("a mesh");
    for (line, colour) in panel.lines.iter().zip(COLOURS) {
        let points: Vec<_> = line.points.iter().copied().filter(|(_, y)| y.is_finite()).collect();
        let dots: Vec<_> = points.iter().map(|point| Circle::new(*point, 3, colour.filled())).collect();
        chart.draw_series(LineSeries::new(points, colour.stroke_width(2))).expect("a line");
        chart.draw_series(dots).expect("its points");
    }
}

/// The label of a number on an axis.
fn short(number: &f64) -> String {
    match *number {
        number if number >= 1e6 => format!("{} M", number / 1e6),
        number if number >= 1e4 => format!("{} k", number / 1e3),
        number => format!("{number}"),
    }
}

fn right_middle() -> plotters::style::text_anchor::Pos {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    Pos::new(HPos::Right, VPos::Center)
}
