//! JSON into a `ModelInferRequest`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::data;
use crate::status::Status;
use crate::v2::{InferParameter, ModelInferRequest, ParameterChoice, Parameters, RequestedOutput, Tensor};

#[derive(Deserialize)]
struct InferBody<'a> {
    id: Option<String>,
    parameters: Option<BTreeMap<String, Value>>,
    #[serde(borrow)]
    inputs: Option<Vec<Input<'a>>>,
    outputs: Option<Vec<Output>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: String,
    shape: Option<Vec<i64>>,
    datatype: String,
    parameters: Option<BTreeMap<String, Value>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    parameters: Option<BTreeMap<String, Value>>,
}

/// The request that a REST body stands for.
///
/// # Errors
/// `INVALID_ARGUMENT` if the body is not JSON of the protocol, or a tensor's data does not fit its datatype
/// and shape.
pub fn infer_request(body: &[u8], name: String, version: String) -> Result<ModelInferRequest, Status> {
    let body: InferBody<'_> = serde_json::from_slice(body).map_err(|error| bad_json(body, &error))?;
    Ok(ModelInferRequest {
        model_name: name,
        model_version: version,
        id: body.id.unwrap_or_default(),
        parameters: parameters(body.parameters),
        inputs: body.inputs.unwrap_or_default().into_iter().map(tensor).collect::<Result<_, _>>()?,
        outputs: body
            .outputs
            .unwrap_or_default()
            .into_iter()
            .map(|output| RequestedOutput { name: output.name, parameters: parameters(output.parameters) })
            .collect(),
        raw_input_contents: Vec::new(),
    })
}

fn bad_json(body: &[u8], error: &serde_json::Error) -> Status {
    if body.is_empty() {
        return Status::invalid("the request has no body");
    }
    let word = |word: &[u8]| body.windows(word.len()).any(|window| window == word);
    let hint = if error.is_syntax() && (word(b"NaN") || word(b"Infinity")) {
        " (JSON has no NaN and no infinite numbers)"
    } else {
        ""
    };
    Status::invalid(format!("the request body is not JSON of the V2 inference protocol: {error}{hint}"))
}

fn tensor(input: Input<'_>) -> Result<Tensor, Status> {
    let shape = input.shape.unwrap_or_default();
    let parameters = parameters(input.parameters);
    let content_type = parameters.get("content_type").and_then(|parameter| parameter.choice.as_ref());
    let base64 = matches!(content_type, Some(ParameterChoice::String(text)) if is_base64(text));
    let data = input.data.map(RawValue::get).filter(|data| *data != "null");
    let contents = data::contents(&input.datatype, &shape, data, base64)
        .map_err(|problem| Status::invalid(format!("the input {:?} {problem}", input.name)))?;
    Ok(Tensor { name: input.name, datatype: input.datatype, shape, parameters, contents: Some(contents) })
}

fn is_base64(content_type: &str) -> bool {
    matches!(content_type, "base64" | "BASE64" | "b64" | "B64")
}

/// Arrays and objects have no form in gRPC; clients that send them know that they are ignored.
fn parameters(given: Option<BTreeMap<String, Value>>) -> Parameters {
    let mut parameters = Parameters::new();
    for (name, value) in given.unwrap_or_default() {
        let choice = match value {
            Value::Null => None,
            Value::Bool(value) => Some(ParameterChoice::Bool(value)),
            Value::String(value) => Some(ParameterChoice::String(value)),
            Value::Number(value) => value
                .as_i64()
                .map(ParameterChoice::Int64)
                .or_else(|| value.as_u64().map(ParameterChoice::Uint64))
                .or_else(|| value.as_f64().map(ParameterChoice::Double)),
            Value::Array(_) | Value::Object(_) => continue,
        };
        parameters.insert(name, InferParameter { choice });
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(body: &str) -> Result<ModelInferRequest, String> {
        infer_request(body.as_bytes(), "m".into(), "1".into()).map_err(|status| status.message)
    }

    fn input(datatype: &str, shape: &str, data: &str) -> Result<Tensor, String> {
        input_with(datatype, shape, data, "{}")
    }

    fn input_with(datatype: &str, shape: &str, data: &str, parameters: &str) -> Result<Tensor, String> {
        let body = format!(
            r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"parameters":{parameters},"data":{data}}}]}}"#
        );
        decode(&body).map(|mut request| request.inputs.remove(0))
    }

    fn strings(tensor: Result<Tensor, String>) -> Vec<Vec<u8>> {
        tensor.unwrap().contents.unwrap().bytes_contents.iter().map(|bytes| bytes.to_vec()).collect()
    }

    #[test]
    fn a_request_is_read_whole() {
        let request = decode(
            r#" {"outputs":[{"name":"o","parameters":{"binary_data":false}}], "inputs":[{"data":[1,2],"shape":[2],
            "name":"i","datatype":"INT64","parameters":{"content_type":"np"}}], "id":"7", "unknown":[{}],
            "parameters":{"b":true,"i":-5,"s":"t","n":null,"d":1.5,"u":18446744073709551615,"o":{},"a":[]}} "#,
        )
        .unwrap();
        assert_eq!((request.model_name.as_str(), request.model_version.as_str()), ("m", "1"));
        assert_eq!(request.id, "7");
        let choice = |name: &str| request.parameters[name].choice.clone();
        assert_eq!(choice("b"), Some(ParameterChoice::Bool(true)));
        assert_eq!(choice("i"), Some(ParameterChoice::Int64(-5)));
        assert_eq!(choice("s"), Some(ParameterChoice::String("t".into())));
        assert_eq!(choice("n"), None);
        assert_eq!(choice("d"), Some(ParameterChoice::Double(1.5)));
        assert_eq!(choice("u"), Some(ParameterChoice::Uint64(u64::MAX)));
        assert_eq!(request.parameters.len(), 6);
        assert_eq!(request.outputs[0].name, "o");
        assert_eq!(request.outputs[0].parameters["binary_data"].choice, Some(ParameterChoice::Bool(false)));
        assert_eq!(request.inputs[0].contents.as_ref().unwrap().int64_contents, [1, 2]);
    }

    #[test]
    fn nested_data_flattens_to_the_same_contents() {
        let flat: Vec<String> = (0..128).map(|number| number.to_string()).collect();
        let nest = |items: Vec<String>, size: usize| -> Vec<String> {
            items.chunks(size).map(|chunk| format!("[{}]", chunk.join(","))).collect()
        };
        let forms = [
            ("[128]", nest(flat.clone(), 128)),
            ("[2,64]", nest(nest(flat.clone(), 64), 2)),
            ("[2,2,32]", nest(nest(nest(flat.clone(), 32), 2), 2)),
            ("[2,2,2,16]", nest(nest(nest(nest(flat.clone(), 16), 2), 2), 2)),
            ("[2,64]", nest(flat.clone(), 128)),
            ("[-1,64]", nest(nest(flat.clone(), 64), 2)),
        ];
        let expected: Vec<f32> = (0u8..128).map(f32::from).collect();
        for (shape, data) in forms {
            let tensor = input("FP32", shape, &data[0]).unwrap();
            assert_eq!(tensor.contents.unwrap().fp32_contents, expected, "{shape}");
        }
    }

    #[test]
    fn nesting_that_is_not_the_shape_is_refused() {
        for (shape, data) in [
            ("[2,2]", "[[1,2],[3]]"),
            ("[2,2]", "[[1,2,3],[4,5,6]]"),
            ("[4]", "[[1,2],[3,4]]"),
            ("[2,2]", "[[1,2],3,4]"),
            ("[1]", "1"),
            ("[1]", "[{\"a\":1}]"),
            ("[2,2]", "null"),
        ] {
            assert!(input("FP32", shape, data).unwrap_err().contains("the input \"x\""), "{shape} {data}");
        }
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        assert!(input("FP32", "[1]", &deep).is_err());
    }

    #[test]
    fn each_datatype_has_its_range() {
        for (datatype, good, bad) in [
            ("BOOL", "true,false", "1"),
            ("UINT8", "0,255", "256"),
            ("UINT16", "65535", "65536"),
            ("UINT32", "4294967295", "4294967296"),
            ("UINT64", "18446744073709551615", "-1"),
            ("INT8", "-128", "128"),
            ("INT16", "-32768", "32768"),
            ("INT32", "-2147483648", "2147483648"),
            ("INT64", "-9223372036854775808", "1.0"),
            ("FP32", "1e38,-0.5,8", "1e39"),
            ("FP64", "1e308", "1e309"),
            ("FP64", "1", "true"),
            ("FP64", "1", "null"),
            ("BYTES", "\"a\"", "1"),
        ] {
            assert!(input(datatype, "[1]", &format!("[{good}]")).is_ok(), "{datatype} {good}");
            assert!(input(datatype, "[1]", &format!("[{bad}]")).is_err(), "{datatype} {bad}");
        }
        assert!(input("FP16", "[1]", "[1]").unwrap_err().contains("FP16"));
        assert!(input("BF16", "[1]", "[1]").unwrap_err().contains("BF16"));
        assert!(input("FLOAT", "[1]", "[1]").unwrap_err().contains("FLOAT"));
    }

    #[test]
    fn byte_strings_come_as_text_base64_or_lists() {
        assert_eq!(
            strings(input("BYTES", "[2]", r#"["My UTF8 String","Another string"]"#)),
            [b"My UTF8 String".to_vec(), b"Another string".to_vec()]
        );
        assert_eq!(strings(input("BYTES", "[1]", "[[1,2,255]]")), [vec![1, 2, 255]]);
        assert_eq!(strings(input("BYTES", "[2,1]", r#"[["String1"],["String2"]]"#)).len(), 2);
        assert_eq!(strings(input("BYTES", "[2,1]", r#"["String1","String2"]"#)).len(), 2);
        assert_eq!(strings(input("BYTES", "[2,1]", "[[[1,2]],[[3]]]")), [vec![1, 2], vec![3]]);
        assert_eq!(strings(input("BYTES", "[2]", "[[1,2],[3]]")), [vec![1, 2], vec![3]]);
        assert_eq!(strings(input("BYTES", "[3]", "[[],[7],[]]")), [vec![], vec![7], vec![]]);
        let base64 = r#"{"content_type":"base64"}"#;
        assert_eq!(
            strings(input_with("BYTES", "[2]", r#"["AAE=","/w=="]"#, base64)),
            [vec![0, 1], vec![255]]
        );
        assert!(input_with("BYTES", "[1]", r#"["no!"]"#, base64).is_err());
        assert_eq!(strings(input("BYTES", "[0]", "[]")), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn escapes_in_strings_mean_what_json_says() {
        let escaped = r#"["\u003ca\u00e9\ud83d\ude00\n\"\\\/]"]"#;
        assert_eq!(strings(input("BYTES", "[1]", escaped)), ["<aé😀\n\"\\/]".as_bytes().to_vec()]);
        assert!(input("BYTES", "[1]", r#"["\ud83d"]"#).is_err());
    }

    #[test]
    fn byte_strings_that_do_not_fit_are_refused() {
        assert!(input("BYTES", "[1]", r#"["a","b"]"#).unwrap_err().contains("room for 1"));
        assert!(input("BYTES", "[2]", "[1,2]").unwrap_err().contains("flat list"));
        assert!(input("BYTES", "[2]", r#"["a",[1]]"#).is_err());
        assert!(input("BYTES", "[1]", "[[256]]").is_err());
    }

    #[test]
    fn what_is_not_json_says_where() {
        assert!(decode(r#"{"inputs":[}"#).unwrap_err().contains("line 1 column 12"));
        assert!(decode("").unwrap_err().contains("no body"));
        assert!(decode("{} x").is_err());
        assert!(
            decode(r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[NaN]}]}"#)
                .unwrap_err()
                .contains("no NaN")
        );
        assert!(
            decode(r#"{"inputs":[{"name":"x","shape":[1],"data":[1]}]}"#).unwrap_err().contains("datatype")
        );
    }
}
