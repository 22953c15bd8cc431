//! Answers as compact JSON, in the order of keys that clients of the original know.

use super::json::{base64, display, float, floats, list, numbers, object, text};
use crate::status::{Code, Status};
use crate::v2::{
    InferParameter, ModelInferResponse, ModelMetadataResponse, ParameterChoice, Parameters,
    ServerMetadataResponse, Tensor, TensorMetadata,
};

/// `{"name":…,"ready":…}`.
pub fn model_ready(name: &str, ready: bool) -> Vec<u8> {
    let mut json = Vec::new();
    object(&mut json, |object| {
        object.text("name", name);
        object.display("ready", ready);
    });
    json
}

/// What `GET /v2` answers.
pub fn server_metadata(metadata: &ServerMetadataResponse) -> Vec<u8> {
    let mut json = Vec::new();
    object(&mut json, |object| {
        object.text("name", &metadata.name);
        object.text("version", &metadata.version);
        list(object.key("extensions"), &metadata.extensions, |json, extension| text(json, extension));
    });
    json
}

/// A `ModelMetadataResponse`, empty fields left out.
pub fn model_metadata(metadata: &ModelMetadataResponse) -> Vec<u8> {
    let mut json = Vec::new();
    object(&mut json, |object| {
        object.optional_text("name", &metadata.name);
        if !metadata.versions.is_empty() {
            list(object.key("versions"), &metadata.versions, |json, version| text(json, version));
        }
        object.optional_text("platform", &metadata.platform);
        for (key, tensors) in [("inputs", &metadata.inputs), ("outputs", &metadata.outputs)] {
            if !tensors.is_empty() {
                list(object.key(key), tensors, tensor_metadata);
            }
        }
    });
    json
}

fn tensor_metadata(json: &mut Vec<u8>, tensor: &TensorMetadata) {
    object(json, |object| {
        object.text("name", &tensor.name);
        object.text("datatype", &tensor.datatype);
        numbers(object.key("shape"), &tensor.shape);
    });
}

/// A `ModelInferResponse`.
///
/// # Errors
/// If a tensor cannot be written: a number that is not finite, a datatype without a JSON form, raw contents
/// that do not fit the shape.
pub fn infer_response(response: &ModelInferResponse) -> Result<Vec<u8>, Status> {
    let raw = &response.raw_output_contents;
    if !raw.is_empty() && raw.len() != response.outputs.len() {
        let text =
            format!("the server sent {} outputs and {} raw contents", response.outputs.len(), raw.len());
        return Err(Status::new(Code::Internal, text));
    }
    let mut json = Vec::new();
    let mut outcome = Ok(());
    object(&mut json, |object| {
        object.optional_text("model_name", &response.model_name);
        object.optional_text("model_version", &response.model_version);
        object.optional_text("id", &response.id);
        if !response.parameters.is_empty() {
            parameters(object.key("parameters"), &response.parameters, None);
        }
        let outputs: Vec<_> = response.outputs.iter().enumerate().collect();
        if !outputs.is_empty() {
            list(object.key("outputs"), &outputs, |json, (index, tensor)| {
                if outcome.is_ok() {
                    outcome = output(json, tensor, raw.get(*index).map(AsRef::as_ref));
                }
            });
        }
    });
    outcome.map(|()| json)
}

fn output(json: &mut Vec<u8>, tensor: &Tensor, raw: Option<&[u8]>) -> Result<(), Status> {
    let mut outcome = Ok(());
    object(json, |object| {
        object.text("name", &tensor.name);
        object.text("datatype", &tensor.datatype);
        numbers(object.key("shape"), &tensor.shape);
        let content_type = (tensor.datatype == "BYTES").then_some("base64");
        if !tensor.parameters.is_empty() || content_type.is_some() {
            parameters(object.key("parameters"), &tensor.parameters, content_type);
        }
        let json = object.key("data");
        outcome = match raw {
            Some(raw) => raw_data(json, tensor, raw),
            None => typed_data(json, tensor),
        };
    });
    outcome.map_err(|problem| {
        let code = if problem.contains("JSON cannot") { Code::Unimplemented } else { Code::Internal };
        Status { http: Some(500), ..Status::new(code, format!("the output {:?} {problem}", tensor.name)) }
    })
}

fn typed_data(json: &mut Vec<u8>, tensor: &Tensor) -> Result<(), String> {
    let empty = crate::v2::TensorContents::default();
    let contents = tensor.contents.as_ref().unwrap_or(&empty);
    match tensor.datatype.as_str() {
        "BOOL" => list(json, &contents.bool_contents, display),
        "UINT8" | "UINT16" | "UINT32" => numbers(json, &contents.uint_contents),
        "UINT64" => numbers(json, &contents.uint64_contents),
        "INT8" | "INT16" | "INT32" => numbers(json, &contents.int_contents),
        "INT64" => numbers(json, &contents.int64_contents),
        "FP32" => return floats(json, contents.fp32_contents.iter().copied()),
        "FP64" => return floats(json, contents.fp64_contents.iter().copied()),
        "BYTES" => list(json, &contents.bytes_contents, |json, bytes| base64(json, bytes)),
        other => return Err(unsupported(other)),
    }
    Ok(())
}

fn unsupported(datatype: &str) -> String {
    format!("has the datatype {datatype}, which JSON cannot carry")
}

fn raw_data(json: &mut Vec<u8>, tensor: &Tensor, raw: &[u8]) -> Result<(), String> {
    match tensor.datatype.as_str() {
        "BOOL" => {
            let values: Vec<bool> = elements(tensor, raw, |[byte]: [u8; 1]| byte != 0)?.collect();
            list(json, &values, display);
        }
        "UINT8" => numbers(json, &elements(tensor, raw, u8::from_le_bytes)?.collect::<Vec<_>>()),
        "UINT16" => numbers(json, &elements(tensor, raw, u16::from_le_bytes)?.collect::<Vec<_>>()),
        "UINT32" => numbers(json, &elements(tensor, raw, u32::from_le_bytes)?.collect::<Vec<_>>()),
        "UINT64" => numbers(json, &elements(tensor, raw, u64::from_le_bytes)?.collect::<Vec<_>>()),
        "INT8" => numbers(json, &elements(tensor, raw, i8::from_le_bytes)?.collect::<Vec<_>>()),
        "INT16" => numbers(json, &elements(tensor, raw, i16::from_le_bytes)?.collect::<Vec<_>>()),
        "INT32" => numbers(json, &elements(tensor, raw, i32::from_le_bytes)?.collect::<Vec<_>>()),
        "INT64" => numbers(json, &elements(tensor, raw, i64::from_le_bytes)?.collect::<Vec<_>>()),
        "FP32" => return floats(json, elements(tensor, raw, f32::from_le_bytes)?),
        "FP64" => return floats(json, elements(tensor, raw, f64::from_le_bytes)?),
        "BYTES" => {
            let strings = byte_strings(tensor, raw)?;
            list(json, &strings, |json, bytes| base64(json, bytes));
        }
        other => return Err(unsupported(other)),
    }
    Ok(())
}

/// The little-endian elements of a raw buffer.
fn elements<'a, T, const SIZE: usize>(
    tensor: &Tensor,
    raw: &'a [u8],
    parse: fn([u8; SIZE]) -> T,
) -> Result<impl Iterator<Item = T> + use<'a, T, SIZE>, String> {
    let (chunks, rest) = raw.as_chunks::<SIZE>();
    if !rest.is_empty() {
        return Err(format!("has {} raw bytes, which is no whole number of elements", raw.len()));
    }
    check_count(tensor, chunks.len())?;
    Ok(chunks.iter().copied().map(parse))
}

fn byte_strings<'a>(tensor: &Tensor, mut raw: &'a [u8]) -> Result<Vec<&'a [u8]>, String> {
    let mut strings = Vec::new();
    while !raw.is_empty() {
        let element = raw
            .split_first_chunk::<4>()
            .and_then(|(len, rest)| rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?));
        let Some((string, rest)) = element else {
            return Err("has raw contents that end inside an element".to_owned());
        };
        strings.push(string);
        raw = rest;
    }
    check_count(tensor, strings.len())?;
    Ok(strings)
}

fn check_count(tensor: &Tensor, count: usize) -> Result<(), String> {
    let product = tensor.shape.iter().try_fold(1i64, |product, dimension| product.checked_mul(*dimension));
    let known = tensor.shape.iter().all(|dimension| *dimension >= 0);
    if known && product.and_then(|product| usize::try_from(product).ok()) != Some(count) {
        return Err(format!("has {count} elements, but the shape {:?}", tensor.shape));
    }
    Ok(())
}

fn parameters(json: &mut Vec<u8>, parameters: &Parameters, content_type: Option<&str>) {
    let mut all = parameters.clone();
    if let Some(content_type) = content_type {
        let choice = Some(ParameterChoice::String(content_type.to_owned()));
        all.insert("content_type".to_owned(), InferParameter { choice });
    }
    object(json, |object| {
        for (name, parameter) in &all {
            match &parameter.choice {
                Some(ParameterChoice::Bool(value)) => object.display(name, value),
                Some(ParameterChoice::Int64(value)) => object.display(name, value),
                Some(ParameterChoice::Uint64(value)) => object.display(name, value),
                Some(ParameterChoice::Double(value)) if value.is_finite() => float(object.key(name), *value),
                Some(ParameterChoice::String(value)) => object.text(name, value),
                Some(ParameterChoice::Double(_)) | None => object.display(name, "null"),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::v2::TensorContents;

    fn parameter(choice: ParameterChoice) -> InferParameter {
        InferParameter { choice: Some(choice) }
    }

    fn tensor(datatype: &str, shape: &[i64], contents: TensorContents) -> Tensor {
        Tensor {
            name: "predict".into(),
            datatype: datatype.into(),
            shape: shape.into(),
            contents: Some(contents),
            parameters: Parameters::new(),
        }
    }

    fn json(outputs: Vec<Tensor>, raw: &[&'static [u8]]) -> Result<String, String> {
        let response = ModelInferResponse {
            outputs,
            raw_output_contents: raw.iter().map(|raw| Bytes::from_static(raw)).collect(),
            ..ModelInferResponse::default()
        };
        match infer_response(&response) {
            Ok(json) => Ok(String::from_utf8(json).unwrap()),
            Err(status) => Err(status.message),
        }
    }

    fn data(datatype: &str, shape: &[i64], raw: &'static [u8]) -> Result<String, String> {
        let json = json(vec![tensor(datatype, shape, TensorContents::default())], &[raw])?;
        Ok(json.split_once("\"data\":").unwrap().1.trim_end_matches("}]}").to_owned())
    }

    #[test]
    fn a_response_is_written_as_the_original_wrote_it() {
        let response = ModelInferResponse {
            model_name: "example".into(),
            id: "foo".into(),
            parameters: Parameters::from([
                ("int_param".to_owned(), parameter(ParameterChoice::Int64(12345))),
                ("content_type".to_owned(), parameter(ParameterChoice::String("bar".into()))),
                ("headers".to_owned(), InferParameter { choice: None }),
                ("bool_param".to_owned(), parameter(ParameterChoice::Bool(false))),
            ]),
            outputs: vec![tensor(
                "INT64",
                &[2],
                TensorContents { int64_contents: vec![8, 8], ..TensorContents::default() },
            )],
            ..ModelInferResponse::default()
        };
        let expected = r#"{"model_name":"example","id":"foo","parameters":{"bool_param":false,"content_type":"bar","headers":null,"int_param":12345},"outputs":[{"name":"predict","datatype":"INT64","shape":[2],"data":[8,8]}]}"#;
        assert_eq!(String::from_utf8(infer_response(&response).unwrap()).unwrap(), expected);
    }

    #[test]
    fn raw_contents_are_read_by_datatype() {
        assert_eq!(data("INT64", &[1, 1], &[7, 0, 0, 0, 0, 0, 0, 0]).unwrap(), "[7]");
        assert_eq!(data("UINT8", &[3], &[0, 7, 255]).unwrap(), "[0,7,255]");
        assert_eq!(data("INT8", &[2], &[255, 1]).unwrap(), "[-1,1]");
        assert_eq!(data("BOOL", &[2], &[0, 1]).unwrap(), "[false,true]");
        assert_eq!(data("UINT16", &[1], &[1, 1]).unwrap(), "[257]");
        assert_eq!(data("FP32", &[1], &[0, 0, 128, 63]).unwrap(), "[1]");
        assert_eq!(data("FP64", &[-1], &[0; 8]).unwrap(), "[0]");
        assert_eq!(data("BYTES", &[2], b"\x01\0\0\0a\0\0\0\0").unwrap(), r#"["YQ==",""]"#);
    }

    #[test]
    fn what_cannot_be_written_is_an_error_with_the_outputs_name() {
        for (datatype, shape, raw) in [
            ("INT64", &[1][..], &[1, 2, 3][..]),
            ("UINT8", &[2], &[1]),
            ("BYTES", &[1], &[9, 0, 0, 0, 1]),
            ("BYTES", &[1], &[9]),
            ("FP16", &[1], &[0, 0]),
            ("FP32", &[1], &[0, 0, 192, 127]),
        ] {
            assert!(data(datatype, shape, raw).unwrap_err().contains("\"predict\""), "{datatype}");
        }
        let infinite = TensorContents { fp64_contents: vec![f64::INFINITY], ..TensorContents::default() };
        assert!(json(vec![tensor("FP64", &[1], infinite)], &[]).unwrap_err().contains("JSON cannot carry"));
        assert!(json(vec![], &[&[1]]).is_err());
    }

    #[test]
    fn floats_have_the_shortest_form() {
        let values = vec![0.1, 8.0, -0.0, 1e21, 1.5e-7, 0.000_021_157];
        let tensor =
            tensor("FP32", &[6], TensorContents { fp32_contents: values, ..TensorContents::default() });
        assert!(
            json(vec![tensor], &[]).unwrap().ends_with(r#""data":[0.1,8,-0,1e+21,1.5e-7,0.000021157]}]}"#)
        );
    }

    #[test]
    fn byte_strings_are_base64_and_say_so() {
        let contents =
            TensorContents { bytes_contents: vec![Bytes::from("a<b")], ..TensorContents::default() };
        let mut output = tensor("BYTES", &[1], contents);
        output.parameters.insert("a&b".into(), parameter(ParameterChoice::String("<>".into())));
        let expected = r#""parameters":{"a\u0026b":"\u003c\u003e","content_type":"base64"},"data":["YTxi"]"#;
        assert!(json(vec![output], &[]).unwrap().contains(expected));
    }

    #[test]
    fn metadata_has_numbers_in_shapes_and_leaves_out_what_is_empty() {
        let metadata = ModelMetadataResponse {
            name: "m".into(),
            inputs: vec![TensorMetadata { name: "i".into(), datatype: "FP32".into(), shape: vec![-1, 64] }],
            ..ModelMetadataResponse::default()
        };
        assert_eq!(
            String::from_utf8(model_metadata(&metadata)).unwrap(),
            r#"{"name":"m","inputs":[{"name":"i","datatype":"FP32","shape":[-1,64]}]}"#
        );
    }
}
