//! gRPC status codes and the error that a request ends with.

use std::fmt;
use std::time::Duration;

use crate::message::Malformed;

/// The gRPC status codes, with their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// Every code, at the index of its number.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The code of a number; what gRPC does not define is `Unknown`.
    #[must_use]
    pub fn from_number(number: usize) -> Self {
        Self::ALL.get(number).copied().unwrap_or(Self::Unknown)
    }

    /// The name that the gRPC specification gives the code.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// The HTTP status of a model server's error: the mapping of google.rpc.Code.
    #[must_use]
    pub fn http(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::Cancelled => 499,
            Self::InvalidArgument | Self::FailedPrecondition | Self::OutOfRange => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::Aborted => 409,
            Self::ResourceExhausted => 429,
            Self::Unknown | Self::Internal | Self::DataLoss => 500,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
        }
    }
}

/// How a request fails: the gRPC code and text, and what REST makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The gRPC code.
    pub code: Code,
    /// What happened, for the user.
    pub message: String,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
    /// The HTTP status, where it is not the usual one of the code.
    pub http: Option<u16>,
}

impl Status {
    /// A status with the usual HTTP status of its code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, http: None }
    }

    /// The request cannot be understood.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// The method is not offered, or not in this form.
    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Code::Unimplemented, message)
    }

    /// Nobody can serve the request now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// The message is larger than `limit` bytes.
    #[must_use]
    pub fn too_large(what: &str, limit: usize) -> Self {
        let message = format!("the {what} is larger than the limit of {limit} bytes");
        Self { http: Some(413), ..Self::new(Code::ResourceExhausted, message) }
    }

    /// The request message is not what it should be.
    #[must_use]
    pub fn malformed(error: Malformed) -> Self {
        Self::invalid(format!("the request message is malformed: {error}"))
    }

    /// The deadline that the client set has passed.
    #[must_use]
    pub fn deadline() -> Self {
        Self::new(Code::DeadlineExceeded, "the request's deadline has passed")
    }

    /// The answer of the policy. A model that cannot be loaded is the server's fault in HTTP: 500.
    #[must_use]
    pub fn of_policy(code: Code, message: String, retry_after: Option<Duration>) -> Self {
        let http = (code == Code::FailedPrecondition).then_some(500);
        Self { retry_after, http, ..Self::new(code, message) }
    }

    /// The HTTP status to answer in REST.
    #[must_use]
    pub fn http(&self) -> u16 {
        self.http.unwrap_or_else(|| self.code.http())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}
