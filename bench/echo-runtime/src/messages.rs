//! The messages of the SPI, of V2 inference and of the management API, as far as they are read or written here.

#![allow(missing_docs)] // the names are the protocols'

use std::collections::BTreeMap;

use bytes::Bytes;

/// `LoadModelRequest` and `PredictModelSizeRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LoadModelRequest {
    #[prost(string, tag = "1")]
    pub model_id: String,
    #[prost(string, tag = "2")]
    pub model_type: String,
    #[prost(string, tag = "3")]
    pub model_path: String,
    #[prost(string, tag = "4")]
    pub model_key: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RegisterModelRequest {
    #[prost(string, tag = "1")]
    pub model_id: String,
    #[prost(message, optional, tag = "2")]
    pub model_info: Option<ModelInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelInfo {
    #[prost(string, tag = "1")]
    pub model_type: String,
    #[prost(string, tag = "2")]
    pub path: String,
}

/// `UnloadModelRequest` and `ModelSizeRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelIdRequest {
    #[prost(string, tag = "1")]
    pub model_id: String,
}

/// `LoadModelResponse`, `PredictModelSizeResponse` and `ModelSizeResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SizeResponse {
    #[prost(uint64, tag = "1")]
    pub size_in_bytes: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct MethodInfo {
    #[prost(uint32, repeated, tag = "1")]
    pub id_injection_path: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RuntimeStatusResponse {
    /// 1 is READY.
    #[prost(int32, tag = "1")]
    pub status: i32,
    #[prost(uint64, tag = "2")]
    pub capacity_in_bytes: u64,
    #[prost(uint32, tag = "3")]
    pub max_loading_concurrency: u32,
    #[prost(uint32, tag = "4")]
    pub model_loading_timeout_ms: u32,
    #[prost(uint64, tag = "5")]
    pub default_model_size_in_bytes: u64,
    #[prost(string, tag = "6")]
    pub runtime_version: String,
    #[prost(btree_map = "string, message", tag = "8")]
    pub method_infos: BTreeMap<String, MethodInfo>,
    #[prost(bool, tag = "10")]
    pub allow_any_method: bool,
}

/// `ServerLiveResponse`, `ServerReadyResponse` and `ModelReadyResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TrueResponse {
    #[prost(bool, tag = "1")]
    pub value: bool,
}

/// `ModelReadyRequest` and `ModelMetadataRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelRequest {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelMetadataResponse {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub platform: String,
}

/// `InferInputTensor` and `InferOutputTensor` of raw contents.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tensor {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub shape: Vec<i64>,
}

/// The head of a `ModelInferRequest`; decoding skips the tensors.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelInferHead {
    #[prost(string, tag = "1")]
    pub model_name: String,
    #[prost(string, tag = "3")]
    pub id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelInferRequest {
    #[prost(string, tag = "1")]
    pub model_name: String,
    #[prost(message, repeated, tag = "5")]
    pub inputs: Vec<Tensor>,
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub raw_input_contents: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelInferResponse {
    #[prost(string, tag = "1")]
    pub model_name: String,
    #[prost(string, tag = "3")]
    pub id: String,
    #[prost(message, repeated, tag = "5")]
    pub outputs: Vec<Tensor>,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub raw_output_contents: Vec<Bytes>,
}
