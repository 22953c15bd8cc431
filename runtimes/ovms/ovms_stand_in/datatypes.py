"""Datatypes: what OpenVINO, the V2 protocol and TensorFlow call the same elements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Datatype:
    """One type of elements: its name in OpenVINO and V2, its number in TensorFlow, and fields of contents.

    `v2_field` and `tfs_field` have the elements where a message has no raw bytes; empty where there is none.
    """

    openvino: str
    v2: str
    tfs: int
    numpy: np.dtype
    v2_field: str
    tfs_field: str


DATATYPES = tuple(
    Datatype(openvino, v2, tfs, np.dtype(kind).newbyteorder("<"), v2_field, tfs_field)
    for openvino, v2, tfs, kind, v2_field, tfs_field in (
        ("boolean", "BOOL", 10, "bool", "bool_contents", "bool_val"),
        ("u8", "UINT8", 4, "uint8", "uint_contents", "int_val"),
        ("u16", "UINT16", 17, "uint16", "uint_contents", "int_val"),
        ("u32", "UINT32", 22, "uint32", "uint_contents", "uint32_val"),
        ("u64", "UINT64", 23, "uint64", "uint64_contents", "uint64_val"),
        ("i8", "INT8", 6, "int8", "int_contents", "int_val"),
        ("i16", "INT16", 5, "int16", "int_contents", "int_val"),
        ("i32", "INT32", 3, "int32", "int_contents", "int_val"),
        ("i64", "INT64", 9, "int64", "int64_contents", "int64_val"),
        ("f16", "FP16", 19, "float16", "", ""),
        ("f32", "FP32", 1, "float32", "fp32_contents", "float_val"),
        ("f64", "FP64", 2, "float64", "fp64_contents", "double_val"),
    )
)

BY_OPENVINO = {each.openvino: each for each in DATATYPES}
BY_TFS = {each.tfs: each for each in DATATYPES}
BY_V2 = {each.v2: each for each in DATATYPES}
