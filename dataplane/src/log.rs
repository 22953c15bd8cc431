//! Events on standard error, one JSON object a line, as the rest of the process writes them.

use std::io::Write;
use std::sync::Once;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes an error event; `detail` is what happened.
pub fn error(event: &str, detail: &str) {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let line = serde_json::json!({
        "event": event,
        "level": "error",
        "logger": "dataplane",
        "detail": detail,
        "time": seconds,
    });
    // There is nobody to tell if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Has panics of this process's native threads written as events, before what Rust itself prints.
pub fn panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            error("panic", &panic.to_string());
            usual(panic);
        }));
    });
}
