//! The counters and measures in Prometheus' text format.
//!
//! Invariant: a scrape reads and changes nothing, so that it costs the threads of the relay nothing.

use super::Metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, prometheus_text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;

/// The metrics of one proxy, to be shown.
#[derive(Debug)]
pub struct Exporter(Registry);

impl Exporter {
    /// The type of [`Exporter::text`].
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// `mode`: that of the proxy.
    pub fn new(metrics: &Arc<Metrics>, mode: &'static str) -> Self {
        let mut registry = Registry::with_prefix("pgsluice");
        let build = Family::<[(&str, &str); 2], Gauge>::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION")), ("mode", mode)]).set(1);
        registry.register("build_info", "The version of the proxy and its mode; the value is always 1", build);
        metrics.measures.register(&mut registry);
        registry.register_collector(Box::new(Plain(Arc::clone(metrics))));
        Self(registry)
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// The library could not write a value.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// The plain counters, and the bytes of the relay.
#[derive(Debug)]
struct Plain(Arc<Metrics>);

impl Collector for Plain {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (from_clients, from_server) = self.0.measures.bytes();
        let bytes = [
            ("client_bytes", "Bytes that came from clients.", from_clients),
            ("server_bytes", "Bytes that came from the server.", from_server),
        ];
        for (name, help, value) in self.0.described().into_iter().chain(bytes) {
            let counter = ConstCounter::new(value);
            let help = help.trim_end_matches('.');
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}
