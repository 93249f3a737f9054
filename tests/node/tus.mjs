// Lets tus-js-client do one job, and prints what it asked and what it got.
//
// The job comes as JSON on the standard input:
//   {"do": "upload", "options": {…}, "file": …, "as": "file" | "buffer" | "stream", "store": …, "chunked": true}
//   {"do": "terminate", "options": {…}, "url": …}
// `options` are those of the library. `store` is the file in which it notes the URLs of uploads, to resume them in
// another process. With `chunked` bodies go out without their length. SIGUSR1 aborts an upload and starts it again;
// SIGUSR2 aborts it and has it deleted.
import { createReadStream, readFileSync } from "node:fs";
import { PassThrough } from "node:stream";
import * as tus from "tus-js-client";

const job = JSON.parse(readFileSync(0, "utf8"));
const requests = [];

class ChunkedStack extends tus.DefaultHttpStack {
    createRequest(method, url) {
        const request = super.createRequest(method, url);
        const send = request.send.bind(request);
        request.send = (body) => {
            // What has no size is sent with Transfer-Encoding: chunked.
            if (body) delete body.size;
            return send(body);
        };
        return request;
    }
}

const options = {
    ...job.options,
    onAfterResponse: (request, response) => {
        const asked = request.getUnderlyingObject();
        requests.push({
            method: request.getMethod(),
            status: response.getStatus(),
            sent: asked.getHeaders(),
            got: response.getUnderlyingObject().headers,
        });
    },
};
if (job.store) options.urlStorage = new tus.FileUrlStorage(job.store);
if (job.chunked) options.httpStack = new ChunkedStack();

function source() {
    if (job.as === "buffer") return readFileSync(job.file);
    const file = createReadStream(job.file);
    // Of a stream that is no file the library does not know the length.
    return job.as === "stream" ? file.pipe(new PassThrough()) : file;
}

async function upload() {
    let done;
    const finished = new Promise((resolve) => (done = resolve));
    const upload = new tus.Upload(source(), {
        ...options,
        onSuccess: () => done({ url: upload.url }),
        onError: (error) => done({ url: upload.url, error: String(error) }),
    });
    let aborts = 0;
    process.on("SIGUSR1", async () => {
        aborts++;
        await upload.abort();
        upload.start();
    });
    process.on("SIGUSR2", async () => {
        await upload.abort(true);
        done({ url: upload.url, terminated: true });
    });
    const earlier = job.store ? await upload.findPreviousUploads() : [];
    if (earlier.length) upload.resumeFromPreviousUpload(earlier[0]);
    upload.start();
    return { ...(await finished), aborts, resumed: earlier.length };
}

async function terminate() {
    try {
        await tus.Upload.terminate(job.url, options);
        return {};
    } catch (failure) {
        return { error: String(failure) };
    }
}

const result = await (job.do === "terminate" ? terminate() : upload());
console.log(JSON.stringify({ ...result, requests }));
// Whatever the library left open, a connection or a stream, is of no use any more.
process.exit(0);
