//! The dashboard's files, built into the binary.
//! # Invariants: a page may load nothing from elsewhere and run no script of its own text.
//! # Not here: what the dashboard shows.

use super::Answer;
use crate::reason::{Reason, Refusal};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue,
};
use hyper::header::{REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// What a page may load and whom it may talk to: this server. `ws:` and `wss:` are named because
/// not every browser takes `'self'` for them.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct Asset {
    path: &'static str,
    kind: &'static str,
    body: &'static [u8],
}

macro_rules! assets {
    ($($path:literal, $kind:ident, $file:literal;)*) => {
        const ASSETS: &[Asset] =
            &[$(Asset { path: $path, kind: $kind, body: include_bytes!($file) },)*];
    };
}

assets! {
    "/", HTML, "assets/index.html";
    "/dashboard.css", STYLE, "assets/dashboard.css";
    "/theme.js", SCRIPT, "assets/theme.js";
    "/dashboard.js", SCRIPT, "assets/dashboard.js";
    "/tabs.js", SCRIPT, "assets/tabs.js";
    "/vitals.js", SCRIPT, "assets/vitals.js";
    "/latency.js", SCRIPT, "assets/latency.js";
    "/terms.js", SCRIPT, "assets/terms.js";
    "/host.js", SCRIPT, "assets/host.js";
    "/broker.js", SCRIPT, "assets/broker.js";
    "/window.js", SCRIPT, "assets/window.js";
    "/board.js", SCRIPT, "assets/board.js";
    "/charts.js", SCRIPT, "assets/charts.js";
    "/model.js", SCRIPT, "assets/model.js";
    "/format.js", SCRIPT, "assets/format.js";
    "/page.js", SCRIPT, "assets/page.js";
    "/favicon.svg", IMAGE, "assets/favicon.svg";
    // Browsers ask for this one beside whatever is no page.
    "/favicon.ico", IMAGE, "assets/favicon.svg";
    "/uplot.js", SCRIPT, "assets/vendor/uplot.js";
    "/uplot.css", STYLE, "assets/vendor/uplot.css";
    "/UPLOT-LICENSE", TEXT, "assets/vendor/UPLOT-LICENSE";
    "/fanfare.js", SCRIPT, "../../clients/js/dist/fanfare.js";
    "/sse.js", SCRIPT, "../../clients/js/dist/sse.js";
}

/// What pages of every origin may load, those that were opened as files too: the client itself. It
/// holds no secret, and whom it may talk to is decided when it connects.
const SHARED: [&str; 2] = ["/fanfare.js", "/sse.js"];

pub(super) fn find(path: &str) -> Result<Answer, Refusal> {
    let asset = ASSETS.iter().find(|asset| asset.path == path).ok_or(Reason::NotFound)?;
    let mut answer = Response::new(Full::new(Bytes::from_static(asset.body)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if SHARED.contains(&path) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    Ok(answer)
}
