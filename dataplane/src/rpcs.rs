//! Which methods clients may call, where they carry the model id, and where the server wants it.

use hashbrown::HashMap;

use crate::status::Status;

/// How one method names its model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rpc {
    /// Field numbers that lead to the id in the request message; empty: the id is in the headers.
    pub path: Box<[u32]>,
    /// The id in the message is an alias.
    pub is_alias: bool,
}

/// The dataplane configuration: methods of clients, by `<package>.<Service>/<Method>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rpcs {
    listed: HashMap<Box<str>, Rpc>,
    allow_other: bool,
    fallback: Rpc,
}

impl Default for Rpcs {
    fn default() -> Self {
        Self::new([], true)
    }
}

impl Rpcs {
    /// The listed methods; others are allowed with the id in the headers if `allow_other`.
    #[must_use]
    pub fn new(listed: impl IntoIterator<Item = (String, Rpc)>, allow_other: bool) -> Self {
        let listed = listed.into_iter().map(|(method, rpc)| (key(&method), rpc)).collect();
        Self { listed, allow_other, fallback: Rpc::default() }
    }

    /// The configuration of `method`.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` if the method is not allowed.
    pub fn get(&self, method: &str) -> Result<&Rpc, Status> {
        match self.listed.get(method) {
            Some(rpc) => Ok(rpc),
            None if self.allow_other => Ok(&self.fallback),
            None => Err(Status::unimplemented(format!("Method not found or not permitted: {method}"))),
        }
    }
}

/// The methods of the model server, and where in their messages it wants the concrete id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Methods {
    listed: HashMap<Box<str>, Box<[u32]>>,
    allow_any: bool,
}

impl Methods {
    /// The listed methods; without any, or with `allow_any`, others are passed on as they are.
    #[must_use]
    pub fn new(listed: impl IntoIterator<Item = (String, Vec<u32>)>, allow_any: bool) -> Self {
        let listed =
            listed.into_iter().map(|(method, path)| (key(&method), path.into_boxed_slice())).collect();
        Self { listed, allow_any }
    }

    /// The injection path of `method`; empty: nothing is injected.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` if the model server does not offer the method.
    pub fn injection_path(&self, method: &str) -> Result<&[u32], Status> {
        match self.listed.get(method) {
            Some(path) => Ok(path),
            None if self.listed.is_empty() || self.allow_any => Ok(&[]),
            None => Err(Status::unimplemented(format!("Method not found or not permitted: {method}"))),
        }
    }
}

fn key(method: &str) -> Box<str> {
    method.trim_start_matches('/').into()
}
