"""The part of a bundle's page that is about phones: inputs, outputs, and code for Android and iOS with their names."""

from __future__ import annotations

from typing import Final

from export.card import Card
from export.lengths import BATCH, TIME
from export.manifest import PortEntry
from export.target import MOBILE

_PAGE: Final = """\
## On a phone

| | name | type | shape |
|---|---|---|---|
{ports}
{about}
`compress inspect .` says what NNAPI, Core ML, QNN and XNNPACK would take of it.
"""
_CODE: Final = """
Android, in Kotlin, with `com.microsoft.onnxruntime:onnxruntime-android`{runtime}:

```kotlin
{kotlin}
```

iOS, in Swift, with the pod `onnxruntime-objc`{runtime}:

```swift
{swift}
```
"""
_READS: Final = """\
The numbers of a text's tokens are those of `tokenizer.json`, which DJL's Hugging Face tokenizers read on Android and
swift-transformers on iOS.
"""
_LENGTHS: Final = """\
Texts are filled up to {lengths} tokens, with zeros that the mask hides. The file holds the weights once; a session
fixes the axes `{batch}` and `{time}` when it is opened, which Java, C and C++ can ask for; in Swift they stay free.
"""
_WRITES: Final = """\
A text is written in steps: what one gives as `present.*` the next one reads as `past_key_values.*`, which are empty at
first (0 long).
"""
_KOTLIN: Final = """\
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import java.nio.{buffer}

/** `model` are the bytes of {file}. */
class Model(private val model: ByteArray) : AutoCloseable {{
    private val environment = OrtEnvironment.getEnvironment()
{sessions}

    /** Returns `{output}`, {axes}, in one row. */
    fun run({arguments}): FloatArray {{
{inputs}
        try {{
            session.run(inputs).use {{ results ->
                val values = (results.get("{output}").get() as OnnxTensor).floatBuffer
                return FloatArray(values.remaining()).also {{ values.get(it) }}
            }}
        }} finally {{
            inputs.values.forEach {{ it.close() }}
        }}
    }}

    override fun close() = {close}
}}{labels}"""
_KOTLIN_SESSION: Final = "    private val session = environment.createSession(model, OrtSession.SessionOptions())"
_KOTLIN_SESSIONS: Final = """\
    private val sessions = sortedMapOf<Int, Lazy<OrtSession>>().apply {{
        for (length in listOf({lengths})) put(length, lazy {{ opened(length) }})
    }}

    private fun opened(length: Int): OrtSession {{
        val options = OrtSession.SessionOptions()
        options.setSymbolicDimensionValue("{batch}", 1)
        options.setSymbolicDimensionValue("{time}", length.toLong())
        return environment.createSession(model, options)
    }}"""
_KOTLIN_TEXT: Final = """\
{picked}
        val shape = longArrayOf(1, length.toLong())
        val inputs = mapOf(
{arrays}
        ).mapValues {{ (_, values) ->
            OnnxTensor.createTensor(environment, LongBuffer.wrap(values.copyOf(length)), shape)
        }}"""
_KOTLIN_PICKED: Final = """\
        val length = sessions.keys.first {{ it >= ids.size }}
        val session = sessions.getValue(length).value"""
_KOTLIN_IMAGE: Final = """\
        val shape = longArrayOf({shape})
        val inputs = mapOf("{name}" to OnnxTensor.createTensor(environment, FloatBuffer.wrap(pixels), shape))"""
_SWIFT: Final = """\
import Foundation
import onnxruntime_objc  // as a Swift package: import OnnxRuntimeBindings

/// `path` is that of {file}.
final class Model {{
    private let environment: ORTEnv
    private let session: ORTSession

    init(path: String) throws {{
        environment = try ORTEnv(loggingLevel: .warning)
        session = try ORTSession(env: environment, modelPath: path, sessionOptions: nil)
    }}

    /// Returns `{output}`, {axes}, in one row.
    func run({arguments}) throws -> [Float] {{
{inputs}
        let outputs = try session.run(withInputs: inputs, outputNames: ["{output}"], runOptions: nil)
        let values = try outputs["{output}"]!.tensorData() as Data
        return values.withUnsafeBytes {{ Array($0.bindMemory(to: Float.self)) }}
    }}
}}{labels}"""
_SWIFT_TEXT: Final = """\
        let length = {length}
        func tensor(_ values: [Int64]) throws -> ORTValue {{
            let all = values + Array(repeating: 0, count: length - values.count)
            let data = all.withUnsafeBufferPointer {{ NSMutableData(data: Data(buffer: $0)) }}
            return try ORTValue(tensorData: data, elementType: .int64, shape: [1, NSNumber(value: length)])
        }}
        let inputs = [
{arrays}
        ]"""
_SWIFT_IMAGE: Final = """\
        let data = pixels.withUnsafeBufferPointer {{ NSMutableData(data: Data(buffer: $0)) }}
        let inputs = ["{name}": try ORTValue(tensorData: data, elementType: .float, shape: [{shape}])]"""
# What each input of texts is made of, in Kotlin and in Swift; `kinds` are 1 for the tokens of a second text.
_ARRAYS: Final = {
    "input_ids": ("ids", "ids"),
    "attention_mask": ("LongArray(ids.size) { 1 }", "Array(repeating: 1, count: ids.count)"),
    "token_type_ids": ("kinds", "kinds"),
}
_KINDS: Final = "token_type_ids"


def on_a_phone(card: Card) -> str:
    """Return the section of a bundle for phones; an empty text for others."""
    manifest = card.manifest
    if manifest.target != MOBILE.name:
        return ""
    ports = [("input", port) for port in manifest.inputs] + [("output", port) for port in manifest.outputs]
    rows = "".join(f"| {kind} | `{port.name}` | {port.dtype} | {_axes(port)} |\n" for kind, port in ports)
    page = _PAGE.format(ports=rows, about=_about(card)).replace("\n\n\n", "\n\n")
    if card.shape.output is not None:
        return page
    known = manifest.versions.get("onnxruntime")
    runtime = "" if known is None else f" {known} or later"
    return page + _CODE.format(runtime=runtime, kotlin=_kotlin(card), swift=_swift(card))


def _about(card: Card) -> str:
    if card.shape.output is not None:
        return _WRITES
    lengths = card.manifest.lengths
    listed = (
        ", ".join(map(str, lengths[:-1])) + f" or {lengths[-1]}" if len(lengths) > 1 else "".join(map(str, lengths))
    )
    filled = _LENGTHS.format(lengths=listed, batch=BATCH, time=TIME) if lengths else ""
    return (_READS if card.shape.image is None else "") + filled


def _axes(port: PortEntry) -> str:
    return " x ".join(str(axis) for axis in port.shape)


def _kotlin(card: Card) -> str:
    lengths, output = card.manifest.lengths, card.manifest.outputs[0]
    listed = ", ".join(map(str, lengths))
    return _KOTLIN.format(
        buffer="LongBuffer" if card.shape.image is None else "FloatBuffer",
        file=card.manifest.model,
        sessions=_KOTLIN_SESSIONS.format(lengths=listed, batch=BATCH, time=TIME) if lengths else _KOTLIN_SESSION,
        output=output.name,
        axes=_axes(output),
        arguments=_arguments(card, tokens="LongArray", pixels="FloatArray"),
        inputs=_kotlin_inputs(card),
        close="sessions.values.forEach { if (it.isInitialized()) it.value.close() }" if lengths else "session.close()",
        labels=_labels(card, "val labels = listOf({})", "values.indices.maxByOrNull { values[it] }!!", dollar="\\$"),
    )


def _kotlin_inputs(card: Card) -> str:
    first = card.manifest.inputs[0]
    if card.shape.image is not None:
        return _KOTLIN_IMAGE.format(name=first.name, shape=_sizes(first))
    picked = _KOTLIN_PICKED.format() if card.manifest.lengths else "        val length = ids.size"
    rows = (f'            "{port.name}" to {_ARRAYS[port.name][0]},' for port in card.manifest.inputs)
    return _KOTLIN_TEXT.format(picked=picked, arrays="\n".join(rows))


def _swift(card: Card) -> str:
    output = card.manifest.outputs[0]
    return _SWIFT.format(
        file=card.manifest.model,
        output=output.name,
        axes=_axes(output),
        arguments=_arguments(card, tokens="[Int64]", pixels="[Float]"),
        inputs=_swift_inputs(card),
        labels=_labels(card, "let labels = [{}]", "values.firstIndex(of: values.max()!)!", dollar="$"),
    )


def _swift_inputs(card: Card) -> str:
    first, lengths = card.manifest.inputs[0], card.manifest.lengths
    if card.shape.image is not None:
        return _SWIFT_IMAGE.format(name=first.name, shape=_sizes(first))
    listed = ", ".join(map(str, lengths))
    length = f"[{listed}].first {{ $0 >= ids.count }}!" if lengths else "ids.count"
    rows = (f'            "{port.name}": try tensor({_ARRAYS[port.name][1]}),' for port in card.manifest.inputs)
    return _SWIFT_TEXT.format(length=length, arrays="\n".join(rows))


def _arguments(card: Card, *, tokens: str, pixels: str) -> str:
    if card.shape.image is not None:
        return f"pixels: {pixels}"
    kinds = any(port.name == _KINDS for port in card.manifest.inputs)
    return f"ids: {tokens}, kinds: {tokens}" if kinds else f"ids: {tokens}"


def _sizes(port: PortEntry) -> str:
    return ", ".join(map(str, [1, *port.shape[1:]]))


def _labels(card: Card, declared: str, likeliest: str, *, dollar: str) -> str:
    """Return the names of the answers, and how the likeliest of them is found where one is the answer."""
    if not card.shape.labels:
        return ""
    listed = ", ".join(_quoted(label, dollar) for label in card.shape.labels)
    one = card.task is not None and card.task.metric.classes and not card.shape.answers_tokens
    told = f"\n// The answer is labels[{likeliest}]" if one else ""
    return f"\n\n{declared.format(listed)}{told}"


def _quoted(label: str, dollar: str) -> str:
    """Return a text as both languages write it, but for `dollar`, which begins an expression in Kotlin."""
    escapes = {"\\": "\\\\", '"': '\\"', "$": dollar, "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(escapes.get(character, character) for character in label) + '"'
