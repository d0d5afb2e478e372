//! Figures beside their floor, with the budget of the design and a verdict.

use std::fmt::Write as _;

use serde::Serialize;

use super::measure::Figures;

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: &'static str,
    /// The product.
    pub measured: f64,
    /// The floor.
    pub floor: f64,
    /// Measured by floor.
    pub ratio: f64,
    /// The budget, as a bound of the ratio.
    pub budget: &'static str,
    /// Is it kept?
    pub kept: bool,
}

fn at_most(what: &'static str, measured: f64, floor: f64, bound: f64, budget: &'static str) -> Row {
    let ratio = measured / floor;
    Row { what, measured, floor, ratio, budget, kept: ratio <= bound }
}

fn at_least(what: &'static str, measured: f64, floor: f64, bound: f64, budget: &'static str) -> Row {
    let ratio = measured / floor;
    Row { what, measured, floor, ratio, budget, kept: ratio >= bound }
}

/// The lines of one number of agents (DESIGN, "Budgets"). The budget for results compares what the controller
/// does to store one with bare Ed25519 and the store, neither with a wire (docs/adr/0012); over the wire, where
/// both sides share the cores with the agents, they are shown beside the whole floor.
pub fn rows(figures: &Figures) -> Vec<Row> {
    let (product, floor) = (&figures.product, &figures.floor);
    vec![
        at_least(
            "connects/s, all at once",
            product.connects_per_second,
            floor.connects_per_second,
            0.6,
            ">= 0.60",
        ),
        at_most(
            "KiB per idle agent",
            product.bytes_per_agent / 1024.0,
            floor.bytes_per_agent / 1024.0,
            1.5,
            "<= 1.50",
        ),
        at_most(
            "fan-out until durable, ms",
            product.fan_out_seconds * 1e3,
            floor.fan_out_seconds * 1e3,
            3.0,
            "<= 3.00",
        ),
        at_least(
            "durable results/s, no wire",
            figures.service_results_per_second,
            figures.service_floor_per_second,
            0.7,
            ">= 0.70",
        ),
        at_least(
            "durable results/s over the wire",
            product.results_per_second,
            floor.results_per_second,
            0.0,
            "-",
        ),
    ]
}

/// The table of one number of agents as text of at most 80 columns.
pub fn text(figures: &Figures) -> String {
    let mut text = format!("{} agents in {} process(es)\n", figures.agents, figures.workers);
    let _ = writeln!(text, "{:<32}{:>11}{:>11}{:>7}  {:<8} kept", "", "measured", "floor", "ratio", "budget");
    for row in rows(figures) {
        let kept = match (row.budget, row.kept) {
            ("-", _) => "",
            (_, true) => "yes",
            (_, false) => "NO",
        };
        let _ = writeln!(
            text,
            "{:<32}{:>11.1}{:>11.1}{:>7.2}  {:<8} {kept}",
            row.what, row.measured, row.floor, row.ratio, row.budget
        );
    }
    let waits = &figures.waits;
    for (what, value, budget) in [
        ("end on a watch after the last, s", waits.watch_lag_seconds, ""),
        ("bytes on a watch, per job", waits.watch_bytes_per_job, ""),
        ("cancel until the run's end, s", waits.cancel_seconds, "<= 5.00"),
        ("killed until it serves, s", waits.restart_seconds, ""),
        ("agents back/s after that", waits.back_per_second, ""),
    ] {
        let _ = writeln!(text, "{what:<32}{value:>11.2}{:>20}{budget}", "");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::measure::Side;
    use crate::sim::waits::Waits;

    #[test]
    fn budgets_are_judged_by_the_ratio() {
        let floor = Side {
            connects_per_second: 1000.0,
            bytes_per_agent: 1024.0,
            fan_out_seconds: 1.0,
            results_per_second: 100.0,
        };
        let product =
            Side { connects_per_second: 590.0, fan_out_seconds: 2.9, results_per_second: 69.0, ..floor };
        let figures = Figures {
            agents: 1,
            workers: 1,
            product,
            floor,
            waits: Waits::default(),
            service_results_per_second: 139.0,
            service_floor_per_second: 200.0,
            sizes: (1, 1, 1, 1),
        };
        let kept: Vec<bool> = rows(&figures).iter().map(|row| row.kept).collect();
        assert_eq!(kept, [false, true, true, false, true]);
        assert!(text(&figures).lines().all(|line| line.len() <= 80), "{}", text(&figures));
    }
}
