// Requests to the daemon. Everything is relative to the page, so that it may stand below a path.

export const HERE = new URL("./", location.href).href.split(/[?#]/, 1)[0];

/** The root URL of a service, with its slash. */
export function rootOf(service) {
  return service ? `${HERE}${encodeURIComponent(service)}/` : HERE;
}

/** What was answered: its status, its JSON (or null) and Retry-After in seconds (or null). */
function answered(status, text, retryAfter) {
  let json = null;
  try {
    json = JSON.parse(text);
  } catch {
    // No body, or no JSON: the status has to do.
  }
  const secs = Number.parseInt(retryAfter ?? "", 10);
  return { status, json, retryAfterSecs: Number.isNaN(secs) ? null : secs };
}

async function fetched(method, url) {
  const response = await fetch(url, {
    method,
    cache: "no-store",
    credentials: "same-origin",
    headers: { Accept: "application/json" },
    signal: AbortSignal.timeout(30_000),
  });
  const text = await response.text();
  return answered(response.status, text, response.headers.get("Retry-After"));
}

/** Rejects when the daemon can't be reached. */
export function get(url) {
  return fetched("GET", url);
}

/** Whether a service takes files, as the platform finds out. */
export async function takesFiles(service) {
  const { json } = await fetched("OPTIONS", rootOf(service));
  return json?.upload_file === true;
}

/**
 * Post an artifact: JSON, or multipart with its file, as the platform does. The value is in the
 * body alone. Rejects when the daemon can't be reached.
 */
export function post({ service, artifact, file, onProgress, signal }) {
  const json = JSON.stringify(artifact);
  let body = json;
  if (file) {
    body = new FormData();
    body.append("artifact", new Blob([json], { type: "application/json" }), "artifact.json");
    body.append("file", new Blob([file], { type: "application/octet-stream" }), file.name);
  }
  // fetch can't tell how far an upload is.
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", rootOf(service));
    if (!file) {
      request.setRequestHeader("Content-Type", "application/json");
    }
    request.upload.onprogress = (event) => {
      if (file && event.lengthComputable) {
        onProgress(event.loaded / event.total);
      }
    };
    request.onload = () =>
      resolve(
        answered(request.status, request.responseText, request.getResponseHeader("Retry-After")),
      );
    request.onerror = () => reject(new Error("no answer"));
    request.onabort = request.onerror;
    signal.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}
