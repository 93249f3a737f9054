// Talks to a server as the client of GBD WebSuite does, with the two libraries that it uses, and prints what it got.
//
// Its job comes as JSON on the standard input, one of
//   {"base": "http://…/_", "do": "upload", "file": …, "name": …, "chunkSize": …, "command": …, "importWith": …}
//   {"base": "http://…/_", "do": "call", "command": …, "request": {…}, "options": {"binaryRequest": true}}
import { readFileSync } from "node:fs";
import axios from "axios";
import msgpack from "@ygoe/msgpack";

const MSGPACK = "application/msgpack";
const job = JSON.parse(readFileSync(0, "utf8"));

const noAnswer = (failure) => ({ error: { status: failure.response?.status ?? -1, info: String(failure) } });

// The whole of that client's error handling: an error's body is returned as if it were a result.
async function call(command, request, { binaryRequest = false, binaryResponse = false } = {}) {
    request.projectUid ||= job.projectUid;
    request.localeUid ||= job.localeUid;
    const options = { url: `${job.base}/${command}`, method: "POST", data: request, withCredentials: true, headers: {} };
    if (binaryRequest) {
        // axios sends the buffer behind this array, so the body is longer than the message: zeros follow it.
        options.data = msgpack.serialize(request);
        options.headers["content-type"] = MSGPACK;
    }
    if (binaryResponse) {
        options.headers.accept = MSGPACK;
        options.responseType = "arraybuffer";
    }
    try {
        const answer = await axios.request(options);
        const packed = answer.headers["content-type"].includes(MSGPACK);
        return packed ? msgpack.deserialize(new Uint8Array(answer.data)) : answer.data;
    } catch (failure) {
        return (!binaryResponse && failure.response?.data) || noAnswer(failure);
    }
}

// One chunk after the other from 0; the first error ends it; a file of 0 bytes sends nothing.
async function upload(bytes) {
    const totalSize = bytes.byteLength;
    const chunkCount = Math.ceil(totalSize / job.chunkSize);
    let uploadUid = "";
    for (let chunkNumber = 0; chunkNumber < chunkCount; chunkNumber++) {
        const content = bytes.slice(job.chunkSize * chunkNumber, job.chunkSize * (chunkNumber + 1));
        const request = { uploadUid, chunkCount, totalSize, fileName: job.name, chunkNumber, content };
        const answer = await call(job.command, request, { binaryRequest: true });
        if (answer.error) return { sent: chunkNumber, failed: answer };
        uploadUid = answer.uploadUid;
    }
    return { sent: chunkCount, uploadUid };
}

async function run() {
    if (job.do === "call") {
        const answer = await call(job.command, job.request ?? {}, job.options);
        return { type: typeof answer, answer };
    }
    const result = await upload(new Uint8Array(readFileSync(job.file)));
    if (result.uploadUid) result.imported = await call(job.importWith, { uploadUid: result.uploadUid });
    return result;
}

// A server may answer and close before it has the whole body. A browser takes the answer; Node also reports the bytes
// that it could not write any more, on a socket that nobody listens to.
process.on("uncaughtException", (failure) => {
    if (failure.syscall !== "write") throw failure;
});

console.log(JSON.stringify(await run()));
