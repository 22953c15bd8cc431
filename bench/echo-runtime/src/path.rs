//! The script of a model: its path says how the model behaves.

use std::time::Duration;

use crate::grpc::{Code, Status};

/// How a model behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Bytes of memory, from the begin of a load to the end of the unload.
    pub size: u64,
    /// How long a load takes.
    pub load: Duration,
    /// How long an unload takes.
    pub unload: Duration,
    /// The text that each load fails with.
    pub failure: Option<String>,
}

impl Script {
    /// Reads `SIZE_<bytes>_<load ms>_<unload ms>` or `FAIL_<text>`; any other path is a model of
    /// `default_size` bytes that loads and unloads at once.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where `SIZE_` is not followed by three numbers.
    pub fn parse(path: &str, default_size: u64) -> Result<Self, Status> {
        let plain = Self { size: default_size, load: Duration::ZERO, unload: Duration::ZERO, failure: None };
        if let Some(text) = path.strip_prefix("FAIL_") {
            return Ok(Self { failure: Some(text.to_owned()), ..plain });
        }
        let Some(numbers) = path.strip_prefix("SIZE_") else { return Ok(plain) };
        let numbers: Option<Vec<u64>> = numbers.split('_').map(|number| number.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[size, load, unload]) => Ok(Self {
                size,
                load: Duration::from_millis(load),
                unload: Duration::from_millis(unload),
                failure: None,
            }),
            _ => Err(Status::new(
                Code::INVALID_ARGUMENT,
                format!("model path {path:?} is not SIZE_<bytes>_<load ms>_<unload ms>"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_scripts_size_and_delays() {
        let script = Script::parse("SIZE_1048576_30_7", 5).unwrap();
        assert_eq!((script.size, script.load.as_millis(), script.unload.as_millis()), (1_048_576, 30, 7));
        assert_eq!(script.failure, None);
    }

    #[test]
    fn a_path_scripts_a_failure() {
        assert_eq!(Script::parse("FAIL_no such_file", 5).unwrap().failure.as_deref(), Some("no such_file"));
    }

    #[test]
    fn other_paths_are_models_of_the_default_size() {
        assert_eq!(Script::parse("models/digits", 5).unwrap().size, 5);
    }

    #[test]
    fn incomplete_scripts_are_refused() {
        for path in ["SIZE_", "SIZE_1_2", "SIZE_1_2_3_4", "SIZE_1_-2_3", "SIZE_a_2_3"] {
            assert_eq!(Script::parse(path, 5).unwrap_err().code, Code::INVALID_ARGUMENT, "{path}");
        }
    }
}
