//! The contract as a page for people.

use std::fmt::Write as _;

use exporter_ebpf::loss::Reason;

use super::contract::{Kind, Stability, all};

/// The reference page, as Markdown.
pub(crate) fn reference() -> String {
    let mut page = String::from(
        "# Metric reference\n\nMade by `gopulse metric-reference` from the table that the exposition itself is made from.\n\n\
         Metrics marked *target* carry `instance_pid` and `executable` in standalone mode, and `namespace`, `pod` and \
         `container` in Kubernetes. There `go_target_info` also has the pod's labels that the configuration chooses, as \
         `label_app_kubernetes_io_name`.\n",
    );
    for desc in all() {
        let kind = match desc.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        };
        let stability = match desc.stability {
            Stability::Stable => "stable",
            Stability::Development => "development",
        };
        let target = if desc.of_target { ", target" } else { "" };
        let labels =
            if desc.labels.is_empty() { String::new() } else { format!("\n\nLabels: `{}`.", desc.labels.join("`, `")) };
        let _ = write!(
            page,
            "\n## `{}`\n\n{} *({kind}{target}, {stability})*{labels}\n\nFrom: {}.\n",
            desc.name, desc.help, desc.source
        );
    }
    page.push_str("\n## Reasons of `exporter_lost_total`\n\n");
    for reason in Reason::ALL {
        let _ = writeln!(page, "- `{}`: {}", reason.label(), meaning(reason));
    }
    page
}

fn meaning(reason: Reason) -> &'static str {
    match reason {
        Reason::NoStart => {
            "a request ended whose start was not seen (in flight when the probes were attached); not counted."
        }
        Reason::InFlightFull => {
            "more goroutines of one target serve requests than its share of `max_in_flight`, four fifths at most; not counted."
        }
        Reason::Unreadable => "the target's memory could not be read at a request's end; counted with what was known.",
        Reason::PanicsFull => {
            "more requests panicked at one time than can be kept; not counted, unless they end normally."
        }
        Reason::RouteOverflow => "more routes than `max_routes`; counted under the route `_overflow`.",
        Reason::SeriesOverflow => {
            "more series in one target than its share of `max_series`, a quarter at most, or of the room for waits; counted under an overflow series of the target."
        }
        Reason::EventRing => "the event ring was full; the periodic scan of /proc makes up for it.",
        Reason::ParkedFull => "more goroutines have waited than `max_parked`; their waits are not counted.",
        Reason::StackLost => "a stack could not be taken or kept; the wait is counted, but is in no profile.",
        Reason::LayoutUnknown => {
            "a request of a server whose struct layouts are not known, see `/targets`. Not counted."
        }
        Reason::TasksFull => "more threads than can be kept; their waits for a CPU are not counted.",
        Reason::WaitUnreadable => {
            "a wait outlasted the time for which the probes on blocking were attached, and the target's memory could not be \
             read in time to see it end; not counted."
        }
        Reason::EndNotSeen => {
            "a request's goroutine ended, or serves or makes another request, and no probe has seen the request end; not counted."
        }
        Reason::NestedTooDeep => {
            "more requests were made within each other on one goroutine than the three that are told apart; not counted."
        }
        Reason::WaitTooLong => {
            "a wait outlasted the time for which the probes on blocking were attached, and went on for over ten minutes; not \
             counted."
        }
    }
}
