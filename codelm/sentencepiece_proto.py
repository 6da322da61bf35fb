"""The part of SentencePiece's model format (sentencepiece_model.proto) that we read and change.

Declared here because the library's own module is generated for one version of protobuf and refuses older ones, which
other libraries need. Fields that are not declared are kept as they are when a model is written again.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "codelm.sentencepiece"
_PIECE_TYPES = {"NORMAL": 1, "UNKNOWN": 2, "CONTROL": 3, "USER_DEFINED": 4, "UNUSED": 5, "BYTE": 6}


def _declare() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="codelm/sentencepiece.proto", package=_PACKAGE, syntax="proto2")
    trainer = file.message_type.add(name="TrainerSpec")
    trainer.field.add(name="vocab_size", number=4, type=_FIELD.TYPE_INT32, label=_FIELD.LABEL_OPTIONAL)
    normalizer = file.message_type.add(name="NormalizerSpec")
    normalizer.field.add(
        name="add_dummy_prefix",
        number=3,
        type=_FIELD.TYPE_BOOL,
        label=_FIELD.LABEL_OPTIONAL,
        default_value="true",
    )
    model = file.message_type.add(name="ModelProto")
    piece = model.nested_type.add(name="SentencePiece")
    kinds = piece.enum_type.add(name="Type")
    for name, number in _PIECE_TYPES.items():
        kinds.value.add(name=name, number=number)
    piece.field.add(name="piece", number=1, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
    piece.field.add(name="score", number=2, type=_FIELD.TYPE_FLOAT, label=_FIELD.LABEL_OPTIONAL)
    piece.field.add(
        name="type",
        number=3,
        type=_FIELD.TYPE_ENUM,
        label=_FIELD.LABEL_OPTIONAL,
        type_name=f".{_PACKAGE}.ModelProto.SentencePiece.Type",
        default_value="NORMAL",
    )
    for name, number, kind, label in (
        ("pieces", 1, "ModelProto.SentencePiece", _FIELD.LABEL_REPEATED),
        ("trainer_spec", 2, "TrainerSpec", _FIELD.LABEL_OPTIONAL),
        ("normalizer_spec", 3, "NormalizerSpec", _FIELD.LABEL_OPTIONAL),
    ):
        type_name = f".{_PACKAGE}.{kind}"
        model.field.add(name=name, number=number, type=_FIELD.TYPE_MESSAGE, label=label, type_name=type_name)
    return file


_MESSAGES: Any = message_factory.GetMessages([_declare()], pool=descriptor_pool.DescriptorPool())
ModelProto = _MESSAGES[f"{_PACKAGE}.ModelProto"]
