//! A run as text, 100 columns wide at most.

use std::fmt::Write;

use crate::text::{certified, controls, count, device_detail, percent, share, si, significant};
use crate::{DeviceReport, Point, Report};

impl Report {
    /// Everything, for a terminal.
    pub fn to_text(&self) -> String {
        let Report { machine, .. } = self;
        let mut text = format!(
            "clientele bench {}: {}, {} cores, {} {}\n",
            self.clientele, machine.cpu, machine.n_cores, machine.os, machine.arch
        );
        for device in &self.devices {
            device_text(&mut text, device);
            let points: Vec<&Point> = self.points_of(&device.name).collect();
            if !points.is_empty() {
                text += HEAD;
                points.iter().for_each(|point| line(&mut text, point));
            }
        }
        if !self.points.is_empty() {
            text += &format!("\n{}", legend(self));
        }
        text
    }
}

const HEAD: &str = "data          rows    d    k   ms/pass (min-max)       rows/s     share certified  inertia  model\n";

fn device_text(text: &mut String, device: &DeviceReport) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\n{} ({})", device.name, device_detail(device));
    let _ = writeln!(text, "  {}", controls(&device.controls));
    if device.is_software {
        *text +=
            "  SOFTWARE: this computes on the processor; its times say nothing about any GPU\n";
    }
    if let Some(drift) = device.busy() {
        let _ = writeln!(
            text,
            "  BUSY MACHINE: the limits before and after differ by {}; measure again when it is quiet",
            percent(drift)
        );
    }
}

fn line(text: &mut String, point: &Point) {
    let shape = point.shape;
    let _ = writeln!(
        text,
        "{:<8}{:>10}{:>5}{:>5}{:>10} {:<13}{:>7} {:>9} {:>9} {:>8.2e}  {:.6}",
        shape.data,
        count(shape.n_rows),
        shape.n_features,
        shape.n_clusters,
        significant(point.pass_ms.median),
        range(point),
        si(point.rows_per_s),
        share(point),
        certified(point.certified_share),
        point.inertia,
        point.model_hash
    );
}

/// In the digits of the median, so that the three can be compared.
fn range(point: &Point) -> String {
    format!(
        "({}-{})",
        significant(point.pass_ms.min),
        significant(point.pass_ms.max)
    )
}

fn legend(report: &Report) -> String {
    let one_model = if report.devices.len() > 1 {
        "All devices found the same model at every shape. "
    } else {
        ""
    };
    format!(
        "Median of {} passes. Share: of the least time that this memory (mem) or this arithmetic (fma) allows.\n\
         Certified: rows proved nearest in 32-bit floats; the others were settled in integers.\n\
         {one_model}The model is the same on every machine.\n",
        report.n_passes
    )
}
