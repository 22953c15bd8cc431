//! The paths of the V2 inference protocol.

use http::Method;
use percent_encoding::percent_decode_str;

/// A model in a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub name: String,
    /// Empty where the path names none.
    pub version: String,
}

/// What a path and method ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Server,
    Live,
    Ready,
    Metadata(Model),
    ModelReady(Model),
    Infer(Model),
}

/// Why there is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    Path(String),
    Method { used: Method, allowed: &'static str },
}

/// The endpoint of a request. Names are percent-decoded after the path is split, so they may contain slashes.
pub fn find(method: &Method, path: &str) -> Result<Endpoint, Mismatch> {
    let unknown = || Mismatch::Path(path.to_owned());
    let segments = path.strip_prefix('/').ok_or_else(unknown)?.split('/');
    let segments: Vec<String> = segments
        .map(|segment| percent_decode_str(segment).decode_utf8().map(Into::into))
        .collect::<Result<_, _>>()
        .map_err(|_| unknown())?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (allowed, endpoint) = match segments.as_slice() {
        ["v2"] => ("GET", Endpoint::Server),
        ["v2", "health", "live"] => ("GET", Endpoint::Live),
        ["v2", "health", "ready"] => ("GET", Endpoint::Ready),
        ["v2", "models", name, rest @ ..] if !name.is_empty() => {
            let (version, action) = match rest {
                ["versions", version, action @ ..] if !version.is_empty() => (*version, action),
                action => ("", action),
            };
            let model = Model { name: (*name).to_owned(), version: version.to_owned() };
            match action {
                [] => ("GET", Endpoint::Metadata(model)),
                ["ready"] => ("GET", Endpoint::ModelReady(model)),
                ["infer"] => ("POST", Endpoint::Infer(model)),
                _ => return Err(unknown()),
            }
        }
        _ => return Err(unknown()),
    };
    if method.as_str() == allowed || (allowed == "GET" && method == Method::HEAD) {
        return Ok(endpoint);
    }
    Err(Mismatch::Method {
        used: method.clone(),
        allowed: if allowed == "GET" { "GET, HEAD" } else { allowed },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, version: &str) -> Model {
        Model { name: name.into(), version: version.into() }
    }

    #[test]
    fn every_path_of_the_protocol_is_found() {
        for (method, path, expected) in [
            (Method::GET, "/v2", Endpoint::Server),
            (Method::GET, "/v2/health/live", Endpoint::Live),
            (Method::HEAD, "/v2/health/ready", Endpoint::Ready),
            (Method::GET, "/v2/models/a", Endpoint::Metadata(model("a", ""))),
            (Method::GET, "/v2/models/a/versions/1", Endpoint::Metadata(model("a", "1"))),
            (Method::GET, "/v2/models/a/ready", Endpoint::ModelReady(model("a", ""))),
            (Method::GET, "/v2/models/a/versions/1/ready", Endpoint::ModelReady(model("a", "1"))),
            (Method::POST, "/v2/models/a/infer", Endpoint::Infer(model("a", ""))),
            (Method::POST, "/v2/models/a%2Fb%20c/versions/2/infer", Endpoint::Infer(model("a/b c", "2"))),
        ] {
            assert_eq!(find(&method, path), Ok(expected), "{path}");
        }
    }

    #[test]
    fn other_paths_and_methods_are_told_apart() {
        for path in ["/", "/v1", "/v2/models", "/v2/models/", "/v2/models/a/explain", "/v2/models/%ff", "v2"]
        {
            assert_eq!(find(&Method::GET, path), Err(Mismatch::Path(path.into())), "{path}");
        }
        assert_eq!(
            find(&Method::GET, "/v2/models/a/infer"),
            Err(Mismatch::Method { used: Method::GET, allowed: "POST" })
        );
        assert_eq!(
            find(&Method::DELETE, "/v2/models/a"),
            Err(Mismatch::Method { used: Method::DELETE, allowed: "GET, HEAD" })
        );
    }
}
