"""The part of a bundle's page that is about phones: its inputs and outputs, and code for Android and iOS with their names."""

from __future__ import annotations

from typing import Final

from export.card import Card
from export.manifest import PortEntry

_ORT: Final = ".ort"
_PAGE: Final = """\
## On a phone

| | name | type | shape |
|---|---|---|---|
{ports}
{reads}
{buckets}"""
_CODE: Final = """
Android, in Kotlin, with `com.microsoft.onnxruntime:onnxruntime-android` {runtime} or later:

```kotlin
{kotlin}
```

iOS, in Swift, with the pod `onnxruntime-objc` {runtime} or later:

```swift
{swift}
```
"""
_READS: Final = """\
The numbers of a text's tokens are what `tokenizer.json` says: it is read by the Hugging Face tokenizers of DJL on Android,
and by swift-transformers on iOS.
"""
_WRITES: Final = """\
A text is written in a loop of steps: what a step gives as `present.*` the next one reads as `past_key_values.*`, which
are empty at first (an axis of 0).
"""
_BUCKETS: Final = """
Each file reads texts of one length, with all of the weights in it: take the smallest that holds a text, and fill up with
zeros, which the mask hides.
"""
_KOTLIN: Final = """\
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
{buffer_import}

/** `model` returns the bytes of a file of this folder. */
class Model(private val model: (String) -> ByteArray) : AutoCloseable {{
    private val environment = OrtEnvironment.getEnvironment()
{sessions}

    /** Returns {gives}, row by row{of}. */
    fun run({arguments}): FloatArray {{
{prepared}
        try {{
            session.run(inputs).use {{ results ->
                val values = (results["{output}"].get() as OnnxTensor).floatBuffer
                return FloatArray(values.remaining()).also {{ values.get(it) }}
            }}
        }} finally {{
            inputs.values.forEach {{ it.close() }}
        }}
    }}

    override fun close() = {close}
}}{labels}"""
_KOTLIN_ONE: Final = '    private val session = environment.createSession(model("{file}"))'
_KOTLIN_SEVERAL: Final = """\
    private val files = sortedMapOf({files})
    private val sessions = files.mapValues {{ (_, file) -> lazy {{ environment.createSession(model(file)) }} }}"""
_KOTLIN_TEXT: Final = """\
{picked}
        val shape = longArrayOf(1, length.toLong())
        val arrays = mapOf(
{arrays}
        )
        val inputs = arrays.mapValues {{ (_, values) ->
            OnnxTensor.createTensor(environment, LongBuffer.wrap(values.copyOf(length)), shape)
        }}"""
_KOTLIN_IMAGE: Final = """\
        val shape = longArrayOf({shape})
        val inputs = mapOf("{name}" to OnnxTensor.createTensor(environment, FloatBuffer.wrap(pixels), shape))"""
_SWIFT: Final = """\
import Foundation
import onnxruntime_objc  // as a Swift package: import OnnxRuntimeBindings

/// `folder` holds the files of this folder.
final class Model {{
    private let environment: ORTEnv
{sessions}

    /// Returns {gives}, row by row{of}.
    func run({arguments}) throws -> [Float] {{
{prepared}
        let outputs = try session.run(withInputs: inputs, outputNames: ["{output}"], runOptions: nil)
        let values = try outputs["{output}"]!.tensorData() as Data
        return values.withUnsafeBytes {{ Array($0.bindMemory(to: Float.self)) }}
    }}
}}{labels}"""
_SWIFT_ONE: Final = """\
    private let session: ORTSession

    init(folder: URL) throws {{
        environment = try ORTEnv(loggingLevel: .warning)
        let path = folder.appendingPathComponent("{file}").path
        session = try ORTSession(env: environment, modelPath: path, sessionOptions: nil)
    }}"""
_SWIFT_SEVERAL: Final = """\
    private let folder: URL
    private let files = [{files}]
    private var sessions: [Int: ORTSession] = [:]

    init(folder: URL) throws {{
        environment = try ORTEnv(loggingLevel: .warning)
        self.folder = folder
    }}

    private func session(for length: Int) throws -> ORTSession {{
        if let open = sessions[length] {{ return open }}
        let path = folder.appendingPathComponent(files[length]!).path
        let session = try ORTSession(env: environment, modelPath: path, sessionOptions: nil)
        sessions[length] = session
        return session
    }}"""
_SWIFT_TEXT: Final = """\
{picked}
        let shape: [NSNumber] = [1, NSNumber(value: length)]
        func tensor(_ values: [Int64]) throws -> ORTValue {{
            let filled = values + Array(repeating: 0, count: length - values.count)
            let data = filled.withUnsafeBufferPointer {{ NSMutableData(data: Data(buffer: $0)) }}
            return try ORTValue(tensorData: data, elementType: .int64, shape: shape)
        }}
        let inputs = [
{arrays}
        ]"""
_SWIFT_IMAGE: Final = """\
        let data = pixels.withUnsafeBufferPointer {{ NSMutableData(data: Data(buffer: $0)) }}
        let inputs = ["{name}": try ORTValue(tensorData: data, elementType: .float, shape: [{shape}])]"""
# Of each input of texts, what it is made of: in Kotlin, and in Swift.
_ARRAYS: Final = {
    "input_ids": ("ids", "ids"),
    "attention_mask": ("LongArray(ids.size) { 1 }", "Array(repeating: 1, count: ids.count)"),
    "token_type_ids": ("kinds", "kinds"),
}


def on_a_phone(card: Card) -> str:
    """Return the section of a bundle in `.ort` files; an empty text for others."""
    manifest = card.manifest
    if not manifest.model.endswith(_ORT):
        return ""
    ports = [("input", port) for port in manifest.inputs] + [("output", port) for port in manifest.outputs]
    writes = card.shape.output is not None
    page = _PAGE.format(
        ports="".join(f"| {kind} | `{port.name}` | {port.dtype} | {_axes(port)} |\n" for kind, port in ports),
        reads=_WRITES if writes else _READS if card.shape.image is None else "",
        buckets=_BUCKETS if manifest.buckets else "",
    )
    runtime = manifest.versions.get("onnxruntime", "")
    code = "" if writes else _CODE.format(runtime=runtime, kotlin=_kotlin(card), swift=_swift(card))
    return page.rstrip("\n") + "\n" + code


def _axes(port: PortEntry) -> str:
    return " x ".join(str(axis) for axis in port.shape)


def _kotlin(card: Card) -> str:
    manifest = card.manifest
    several = ", ".join(f'{length} to "{file}"' for length, file in manifest.buckets.items())
    return _KOTLIN.format(
        buffer_import=f"import java.nio.{'LongBuffer' if card.shape.image is None else 'FloatBuffer'}",
        sessions=_KOTLIN_SEVERAL.format(files=several) if several else _KOTLIN_ONE.format(file=manifest.model),
        gives=_gives(card),
        of=_of(card),
        arguments="pixels: FloatArray" if card.shape.image is not None else _arguments(card, "LongArray", "LongArray(ids.size)"),
        prepared=_kotlin_inputs(card),
        output=manifest.outputs[0].name,
        close="sessions.values.forEach { if (it.isInitialized()) it.value.close() }" if several else "session.close()",
        labels=_kotlin_labels(card),
    )


def _kotlin_inputs(card: Card) -> str:
    manifest = card.manifest
    if card.shape.image is not None:
        port = manifest.inputs[0]
        return _KOTLIN_IMAGE.format(name=port.name, shape=", ".join(map(str, [1, *port.shape[1:]])))
    picked = "        val length = ids.size"
    if manifest.buckets:
        picked = "        val length = files.keys.first { it >= ids.size }\n        val session = sessions.getValue(length).value"
    arrays = (f'            "{port.name}" to {_ARRAYS[port.name][0]},' for port in manifest.inputs)
    return _KOTLIN_TEXT.format(picked=picked, arrays="\n".join(arrays))


def _swift(card: Card) -> str:
    manifest = card.manifest
    several = ", ".join(f'{length}: "{file}"' for length, file in manifest.buckets.items())
    return _SWIFT.format(
        sessions=_SWIFT_SEVERAL.format(files=several) if several else _SWIFT_ONE.format(file=manifest.model),
        gives=_gives(card),
        of=_of(card),
        arguments="pixels: [Float]" if card.shape.image is not None else _arguments(card, "[Int64]", None),
        prepared=_swift_inputs(card),
        output=manifest.outputs[0].name,
        labels=_swift_labels(card),
    )


def _swift_inputs(card: Card) -> str:
    manifest = card.manifest
    if card.shape.image is not None:
        port = manifest.inputs[0]
        return _SWIFT_IMAGE.format(name=port.name, shape=", ".join(map(str, [1, *port.shape[1:]])))
    picked = "        let length = ids.count"
    if manifest.buckets:
        picked = "        let length = files.keys.sorted().first { $0 >= ids.count }!\n        let session = try self.session(for: length)"
    arrays = (f'            "{port.name}": try tensor({_ARRAYS[port.name][1]}),' for port in manifest.inputs)
    return _SWIFT_TEXT.format(picked=picked, arrays="\n".join(arrays))


def _arguments(card: Card, kind: str, default: str | None) -> str:
    """Return the arguments of a function that reads a text; `kinds` says 1 for the tokens of a second text."""
    if not any(port.name == "token_type_ids" for port in card.manifest.inputs):
        return f"ids: {kind}"
    return f"ids: {kind}, kinds: {kind}" + ("" if default is None else f" = {default}")


def _gives(card: Card) -> str:
    return f"`{card.manifest.outputs[0].name}`"


def _of(card: Card) -> str:
    return ", a row for each token" if card.shape.head is None or card.shape.answers_tokens else ""


def _kotlin_labels(card: Card) -> str:
    if not card.shape.labels:
        return ""
    listed = ", ".join(_quoted(label).replace("$", "\\$") for label in card.shape.labels)
    told = f"\n\nval labels = listOf({listed})"
    if _one_of_them(card):
        told += "\n// val values = Model(read).run(ids); labels[values.indices.maxByOrNull { values[it] }!!]"
    return told


def _swift_labels(card: Card) -> str:
    if not card.shape.labels:
        return ""
    listed = ", ".join(map(_quoted, card.shape.labels))
    told = f"\n\nlet labels = [{listed}]"
    if _one_of_them(card):
        told += "\n// let values = try Model(folder: folder).run(ids: ids); labels[values.firstIndex(of: values.max()!)!]"
    return told


def _one_of_them(card: Card) -> bool:
    return card.task is not None and card.task.metric.classes and not card.shape.answers_tokens


def _quoted(label: str) -> str:
    escaped = label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
