//! Certificates that change while the bridge runs.

use std::{sync::Arc, time::Duration};

use prometheus::IntGaugeVec;
use rustls::pki_types::UnixTime;
use tokio::sync::watch;

use super::{Clients, Expiry, Section, ServerTls, TlsError};
use crate::{files::Files, metrics::Metrics};

/// The TLS of future handshakes, as [`Reload`] last changed it.
pub type CurrentTls = watch::Receiver<Arc<ServerTls>>;

/// The pause between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// These files' label of `causeway_reload_refused`.
const REFUSED: &str = "tls";

/// Takes up certificates, key and CRLs together when their files change. The old ones stay in use until all files are
/// right.
pub struct Reload {
    section: Section,
    current: watch::Sender<Arc<ServerTls>>,
    metrics: Arc<Metrics>,
    watched: Files,
    expiries: Vec<Expiry>,
}

impl Reload {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// All files that cannot be used, each with its remedy.
    pub fn new(section: Section, metrics: &Arc<Metrics>) -> Result<Self, Vec<TlsError>> {
        let files = &section.tls;
        let judging = (section.clients != Clients::None).then_some([Some(&files.client_ca), files.crl.as_ref()]);
        let paths = [&files.certificate, &files.private_key].into_iter().chain(judging.into_iter().flatten().flatten());
        let watched = Files::new(paths.cloned().collect());
        let (tls, expiries) = ServerTls::load(&section)?;
        publish(&expiries, &metrics.certificate_expiry);
        metrics.reload_refused.with_label_values(&[REFUSED]).set(0);
        let current = watch::Sender::new(Arc::new(tls));
        Ok(Self { section, current, metrics: Arc::clone(metrics), watched, expiries })
    }

    pub fn current(&self) -> CurrentTls {
        self.current.subscribe()
    }

    /// Looks at the files for as long as it is polled.
    pub async fn watch(mut self) {
        loop {
            self.warn_of_expired();
            tokio::time::sleep(LOOK_EVERY).await;
            tokio::task::block_in_place(|| {
                if self.watched.have_changed() {
                    self.take_up();
                }
            });
        }
    }

    fn take_up(&mut self) {
        let loaded = self.load();
        self.metrics.reload_refused.with_label_values(&[REFUSED]).set(i64::from(loaded.is_err()));
        match loaded {
            Ok((tls, expiries)) => {
                // A new configuration knows no sessions: nobody resumes one from before the change.
                self.current.send_replace(Arc::new(tls));
                publish(&expiries, &self.metrics.certificate_expiry);
                self.expiries = expiries;
                self.metrics.tls_reloads.with_label_values(&["ok"]).inc();
                tracing::info!("certificates have changed: new connections use the new ones");
            }
            Err(faults) => {
                self.metrics.tls_reloads.with_label_values(&["refused"]).inc();
                for fault in faults {
                    tracing::error!("certificates have changed and cannot be used; all the old ones stay: {fault}");
                }
            }
        }
    }

    fn load(&self) -> Result<(ServerTls, Vec<Expiry>), Vec<TlsError>> {
        let loaded = ServerTls::load(&self.section)?;
        // No sender would take it: any other one is better. What stands behind it is for the sender to judge.
        if loaded.0.certificate_end.is_some_and(|end| end <= now()) {
            let file = &self.section.tls.certificate;
            return Err(vec![self.section.fault("certificate", file, "it has expired", "give one that is valid")]);
        }
        Ok(loaded)
    }

    /// Once for each file; until the next change.
    fn warn_of_expired(&mut self) {
        let now = now();
        for expiry in self.expiries.extract_if(.., |expiry| expiry.at <= now) {
            let file = &expiry.file;
            match expiry.what {
                "crl" => tracing::warn!(
                    file,
                    "a newer CRL was due: certificates revoked since the last one are still let in"
                ),
                what => tracing::error!(file, "a {what} certificate in it has expired"),
            }
        }
    }
}

/// Publishes the end of each certificate.
pub fn publish(expiries: &[Expiry], gauge: &IntGaugeVec) {
    for expiry in expiries {
        gauge.with_label_values(&[expiry.what, ""]).set(expiry.at);
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX)
}
