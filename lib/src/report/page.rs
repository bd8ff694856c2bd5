//! Renders the page from numbers and figures.

use minijinja::{Environment, Value as Safe, context};
use serde_json::{Value, json};

use super::Error;
use super::agreement::Agreement;
use super::figures::short;
use super::planes::{LOCAL_RANGE, agreement_colour};
use super::receipts::Receipt;

/// The templates: the two pages, and what both contain.
const TEMPLATES: [(&str, &str); 4] = [
    ("page.html", include_str!("page.html")),
    ("stack.html", include_str!("stack.html")),
    ("style.html", include_str!("style.html")),
    ("runs.html", include_str!("runs.html")),
];

/// The numbers and figures of one stage.
pub(super) struct StageView {
    pub(super) name: String,
    pub(super) location: String,
    pub(super) agreement: Agreement,
    pub(super) overlay: String,
    pub(super) checkerboard: String,
    pub(super) local: String,
}

/// Everything that the page shows.
pub(super) struct View {
    pub(super) title: String,
    pub(super) fixed: Value,
    pub(super) moving: Value,
    pub(super) stages: Vec<StageView>,
    /// Width and height of the panel perpendicular to z, in SVG units.
    pub(super) panel: [f64; 2],
    pub(super) window_um: [f64; 3],
    pub(super) spots: Option<Value>,
    pub(super) spot_drawing: String,
    pub(super) histogram: String,
    pub(super) blocks: Option<Value>,
    pub(super) block_drawing: String,
    pub(super) truth: Vec<Value>,
    pub(super) receipts: Vec<Receipt>,
    pub(super) warnings: Vec<String>,
    pub(super) neuroglancer: String,
}

/// Renders the page as HTML.
///
/// # Errors
/// [`Error::Page`] if the template does not match its data, which tests rule out.
pub(super) fn render(view: &View) -> Result<String, Error> {
    let environment = environment()?;
    let stages: Vec<Safe> = view.stages.iter().enumerate().map(stage).collect();
    let first = view.stages.first().and_then(|s| s.agreement.ncc_overlap);
    let last = view.stages.last().and_then(|s| s.agreement.ncc_overlap);
    let page = environment.get_template("page.html")?.render(context! {
        title => view.title.as_str(),
        version => env!("CARGO_PKG_VERSION"),
        fixed => of_json(&view.fixed),
        moving => of_json(&view.moving),
        stages => stages,
        last => view.stages.len().saturating_sub(1),
        ncc_first => figure(first),
        ncc_last => figure(last),
        panel_width => format!("{:.1}", view.panel[0]),
        panel_height => format!("{:.1}", view.panel[1]),
        window => view.window_um.map(short).join(" × "),
        legend => legend(),
        legend_low => short(f64::from(LOCAL_RANGE[0])),
        spots => view.spots.as_ref().map(of_json),
        spot_drawing => Safe::from_safe_string(view.spot_drawing.clone()),
        histogram => Safe::from_safe_string(view.histogram.clone()),
        blocks => view.blocks.as_ref().map(of_json),
        block_drawing => Safe::from_safe_string(view.block_drawing.clone()),
        truth => view.truth.iter().map(of_json).collect::<Vec<_>>(),
        runs => runs(&view.receipts).iter().map(of_json).collect::<Vec<_>>(),
        totals => totals(&view.receipts).as_ref().map(of_json),
        receipts => of_json(&view.receipts.iter().map(Receipt::view).collect()),
        warnings => view.warnings.clone(),
        neuroglancer => view.neuroglancer.as_str(),
    })?;
    Ok(page)
}

fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    for (name, template) in TEMPLATES {
        environment.add_template(name, template)?;
    }
    Ok(environment)
}

/// Everything that the page of a stack shows.
pub(super) struct StackPage {
    pub(super) title: String,
    pub(super) stack: Value,
    pub(super) aligned: Value,
    pub(super) sections: usize,
    pub(super) not_placed: String,
    /// The median correlations before and after.
    pub(super) ncc: [Option<f64>; 2],
    /// Titles, units, figures and legends.
    pub(super) charts: Vec<Value>,
    pub(super) overlays: Vec<Value>,
    pub(super) strips: Vec<Value>,
    pub(super) arrows: String,
    pub(super) arrow_caption: String,
    pub(super) pairs: Vec<[String; 6]>,
    pub(super) pairs_in_all: usize,
    pub(super) receipts: Vec<Receipt>,
    pub(super) warnings: Vec<String>,
}

/// Renders the page of a stack as HTML.
///
/// # Errors
/// [`Error::Page`] if the template does not match its data, which tests rule out.
pub(super) fn render_stack(page: &StackPage) -> Result<String, Error> {
    let drawn = |figures: &[Value]| -> Vec<Safe> { figures.iter().map(of_figure).collect() };
    Ok(environment()?.get_template("stack.html")?.render(context! {
        title => page.title.as_str(),
        version => env!("CARGO_PKG_VERSION"),
        stack => of_json(&page.stack),
        aligned => of_json(&page.aligned),
        sections => page.sections,
        not_placed => page.not_placed.as_str(),
        ncc_before => figure(page.ncc[0]),
        ncc_after => figure(page.ncc[1]),
        charts => drawn(&page.charts),
        overlays => drawn(&page.overlays),
        strips => drawn(&page.strips),
        arrows => Safe::from_safe_string(page.arrows.clone()),
        arrow_caption => page.arrow_caption.as_str(),
        pairs => page.pairs.clone(),
        pairs_in_all => page.pairs_in_all,
        runs => runs(&page.receipts).iter().map(of_json).collect::<Vec<_>>(),
        totals => totals(&page.receipts).as_ref().map(of_json),
        receipts => of_json(&page.receipts.iter().map(Receipt::view).collect()),
        warnings => page.warnings.clone(),
    })?)
}

/// As [`of_json`], for an object whose text `figure` is HTML.
fn of_figure(value: &Value) -> Safe {
    let Value::Object(map) = value else { return of_json(value) };
    Safe::from_pairs(map.iter().map(|(name, value)| {
        let is_drawing = name == "figure";
        let drawing = value.as_str().filter(|_| is_drawing);
        let safe = drawing.map(|drawing| Safe::from_safe_string(drawing.to_owned()));
        (name.as_str(), safe.unwrap_or_else(|| of_json(value)))
    }))
}

/// Converts a JSON value to a value of the template engine.
fn of_json(value: &Value) -> Safe {
    match value {
        Value::Null => Safe::from(()),
        Value::Bool(flag) => Safe::from(*flag),
        Value::String(text) => Safe::from(text.as_str()),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Safe::from(whole),
            None => Safe::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::Array(list) => Safe::from(list.iter().map(of_json).collect::<Vec<_>>()),
        Value::Object(map) => Safe::from_pairs(map.iter().map(|(k, v)| (k.as_str(), of_json(v)))),
    }
}

fn figure(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |v| format!("{v:.3}"))
}

fn stage((index, view): (usize, &StageView)) -> Safe {
    let a = view.agreement;
    let bar = |v: Option<f64>| format!("{:.1}", v.unwrap_or(0.0).clamp(0.0, 1.0) * 100.0);
    context! {
        index => index,
        name => view.name.as_str(),
        location => view.location.as_str(),
        overlap => figure(a.ncc_overlap),
        overlap_bar => bar(a.ncc_overlap),
        foreground => figure(a.ncc_foreground),
        foreground_bar => bar(a.ncc_foreground),
        local => figure(a.local_median),
        local_bar => bar(a.local_median),
        local_p10 => figure(a.local_p10),
        share => format!("{:.1} %", a.overlap * 100.0),
        above => a.foreground_above.map_or("–".to_owned(), short),
        overlay => Safe::from_safe_string(view.overlay.clone()),
        checkerboard => Safe::from_safe_string(view.checkerboard.clone()),
        map => Safe::from_safe_string(view.local.clone()),
    }
}

/// The colour scale of the local correlation as a list of CSS colours for a gradient.
fn legend() -> String {
    const STOPS: usize = 12;
    (0..=STOPS)
        .map(|i| {
            let share = i as f32 / STOPS as f32;
            let [r, g, b, _] =
                agreement_colour(LOCAL_RANGE[0] + share * (LOCAL_RANGE[1] - LOCAL_RANGE[0]));
            format!("rgb({r} {g} {b})")
        })
        .collect::<Vec<_>>()
        .join(",")
}

fn runs(receipts: &[Receipt]) -> Vec<Value> {
    let most = |of: fn(&Receipt) -> Option<f64>| {
        receipts.iter().filter_map(of).fold(0.0, f64::max).max(1e-9)
    };
    let seconds = most(Receipt::wall).max(most(Receipt::cpu));
    let memory = most(Receipt::peak_memory);
    let bar = |value: Option<f64>, of: f64| format!("{:.1}", value.unwrap_or(0.0) / of * 100.0);
    receipts
        .iter()
        .map(|r| {
            json!({
                "program": r.program(),
                "wall": r.wall().map_or("–".into(), time),
                "wall_bar": bar(r.wall(), seconds),
                "cpu": r.cpu().map_or("–".into(), time),
                "cpu_bar": bar(r.cpu(), seconds),
                "memory": r.peak_memory().map_or("–".into(), bytes),
                "memory_bar": bar(r.peak_memory(), memory),
            })
        })
        .collect()
}

fn totals(receipts: &[Receipt]) -> Option<Value> {
    let sum = |of: fn(&Receipt) -> Option<f64>| receipts.iter().filter_map(of).sum::<f64>();
    let peak = receipts.iter().filter_map(Receipt::peak_memory).fold(0.0, f64::max);
    (!receipts.is_empty()).then(|| {
        json!({
            "wall": time(sum(Receipt::wall)),
            "cpu": time(sum(Receipt::cpu)),
            "memory": bytes(peak),
        })
    })
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 0.9995 => format!("{:.0} ms", s * 1000.0),
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{:.0} min {:02.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
        s => format!("{:.0} h {:02.0} min", (s / 3600.0).floor(), (s % 3600.0 / 60.0).floor()),
    }
}

fn bytes(count: f64) -> String {
    const STEPS: [(f64, &str); 4] = [
        (1_099_511_627_776.0, "TiB"),
        (1_073_741_824.0, "GiB"),
        (1_048_576.0, "MiB"),
        (1024.0, "KiB"),
    ];
    STEPS
        .iter()
        .find(|(size, _)| count >= *size)
        .map_or(format!("{count:.0} B"), |(size, unit)| format!("{:.1} {unit}", count / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_in_the_unit_that_a_person_would_take() {
        assert_eq!(
            [0.25, 12.34, 61.0, 7320.0].map(time),
            ["250 ms", "12.3 s", "1 min 01 s", "2 h 02 min"]
        );
        assert_eq!([17.0, 2048.0, 5e8].map(bytes), ["17 B", "2.0 KiB", "476.8 MiB"]);
    }
}
