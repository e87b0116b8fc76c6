// One artifact that was asked about, from the request to its final answer.

import { HERE, get, post, rootOf } from "./ask.js";
import { clock, copies, count, duration, icon, make } from "./text.js";

// When the daemon can't be reached, or does not say when to ask again.
const RETRY_SECS = 5;
// A scan is written just after its answer: how often, and how far apart, its details are looked for.
const DETAIL_LOOKS = 3;
const DETAIL_WAIT_MS = 200;

// What is said of a scan that is finished, and of one that is not.
const BADGES = {
  asking: ["Asking", "Asking"],
  found: ["Found", "Found, still asking"],
  nothing: ["Nothing found", "Nothing found"],
  nobody: ["Nobody asked", "Nobody asked"],
  unasked: ["Could not ask", "Could not ask yet"],
  refused: ["Not answered", "Not answered"],
};

const template = document.getElementById("answer");
const said = document.getElementById("said");

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Which searchers could not be asked. */
function missing(searches) {
  return (searches ?? []).filter((one) => one.ended === "failed" || one.ended === "later");
}

function names(searches) {
  return searches.map(name).join(", ");
}

/** A searcher; of one that stands for several sources, with those that could not be asked. */
function name(search) {
  const sources = (search.missing ?? []).join(", ");
  return sources ? `${search.searcher} (${sources})` : search.searcher;
}

export class Answer {
  /**
   * @param service its name; empty for the one at the root.
   * @param label what people call the type.
   * @param shown the value as it may be shown.
   */
  constructor({ service, type, label, shown }) {
    this.service = service;
    // What `resutil threatservicetest` asks for.
    this.isTest = type === "net.name" && /^localhost\.?$/i.test(shown);
    this.gone = false;
    this.leaving = new AbortController();
    this.id = "";
    this.hits = [];
    this.searches = null;
    this.wake = null;
    this.element = template.content.cloneNode(true).firstElementChild;
    this.card = this.element.querySelector("article");
    const part = (selector) => this.card.querySelector(selector);
    this.badge = part(".badge");
    this.verdict = part(".verdict");
    this.bar = part("progress");
    this.wait = part(".wait");
    this.rows = part(".searches");
    this.list = part(".hits");
    this.foot = part("footer");
    this.title = part("h3");
    this.title.textContent = shown;
    const where = service ? `/${service}/` : "";
    part(".meta").textContent = [label, type, where, clock(new Date())].filter(Boolean).join(" · ");
    part(".dismiss").setAttribute("aria-label", `Dismiss the answer about ${shown}`);
    part(".dismiss").addEventListener("click", () => this.dismiss());
    part(".wait button").addEventListener("click", () => this.wake?.());
    copies(part(".copy"), () => part(".curl").textContent);
    this.show("asking", "");
  }

  /** Whether nothing more will come. */
  get finished() {
    return this.card.getAttribute("aria-busy") === "false";
  }

  dismiss() {
    this.gone = true;
    this.leaving.abort();
    this.wake?.();
    this.element.remove();
    document.dispatchEvent(new Event("dismissed"));
  }

  /** Post the artifact and follow its scan to the end. */
  async ask({ artifact, file }) {
    this.bar.hidden = !file;
    let answer;
    try {
      answer = await post({
        service: this.service,
        artifact,
        file,
        signal: this.leaving.signal,
        onProgress: (part) => {
          this.bar.value = part;
          this.verdict.textContent =
            part < 1 ? `Uploading, ${Math.floor(part * 100)} %` : "Uploaded; waiting for the answer";
        },
      });
    } catch {
      this.end("refused", "ctsd can't be reached. Ask again when it is back.");
      return;
    } finally {
      this.bar.hidden = true;
    }
    while (!this.gone && !(await this.take(answer))) {
      answer = await this.again(answer.json.retry_secs);
    }
  }

  /** Take an answer; whether it was the last one. */
  async take({ status, json, retryAfterSecs }) {
    if ((status === 200 || status === 303) && json) {
      this.id = json.id;
      this.hits = json.hits ?? [];
      await this.look();
      this.showAll(status === 200);
      return status === 200;
    }
    const why = json?.error ?? `status ${status}`;
    if (status === 503) {
      // Nothing is known: the platform sends the artifact again.
      await this.look();
      this.showDetails(true);
      const later = retryAfterSecs ? ` It can be asked again in ${duration(retryAfterSecs)}.` : "";
      this.end("unasked", `ctsd says: ${why}. This does not mean that nothing was found.${later}`);
    } else if (status === 204) {
      this.end("refused", "ctsd does not know this scan any more. Ask again.");
    } else {
      this.end("refused", `ctsd says: ${why}`);
    }
    return true;
  }

  /** Wait as long as the daemon says, and ask for the scan; again and again until it answers. */
  async again(retrySecs) {
    let secs = retrySecs || RETRY_SECS;
    let before = "Not finished; asking again";
    for (;;) {
      await this.count(secs, before);
      if (this.gone) {
        return null;
      }
      try {
        return await get(rootOf(this.service) + this.id);
      } catch {
        secs = RETRY_SECS;
        before = "ctsd can't be reached; trying again";
      }
    }
  }

  /** Count down, unless somebody does not want to wait. */
  async count(secs, before) {
    const text = this.wait.firstElementChild;
    const until = Date.now() + secs * 1000;
    let woken = false;
    this.wait.hidden = false;
    while (!woken && Date.now() < until) {
      const left = Math.ceil((until - Date.now()) / 1000);
      text.textContent = `${before} in ${duration(left)} (retry_secs ${secs})`;
      woken = await Promise.race([
        pause(Math.min(1000, until - Date.now())),
        new Promise((resolve) => (this.wake = () => resolve(true))),
      ]);
    }
    this.wake = null;
    text.textContent = "Asking again";
  }

  /** Find out how each searcher stands; this is not part of the protocol. */
  async look() {
    if (!this.id) {
      return;
    }
    const path = this.service ? `${encodeURIComponent(this.service)}/${this.id}` : this.id;
    for (let looks = 0; looks < DETAIL_LOOKS && !this.gone; looks += 1) {
      try {
        const { status, json } = await get(`${HERE}console/scan/${path}`);
        if (status === 200 && json) {
          this.searches = json.searches;
          return;
        }
      } catch {
        return;
      }
      await pause(DETAIL_WAIT_MS);
    }
  }

  // -- what is seen

  showAll(finished) {
    this.showDetails(finished);
    const without = missing(this.searches);
    const [state, verdict] = this.hits.length
      ? ["found", count(this.hits.length, "finding") + (finished ? "." : " so far.")]
      : finished
        ? this.withoutHits(without)
        : this.withoutHitsYet(without);
    const whole = without.length ? `${verdict} Could not be asked: ${names(without)}.` : verdict;
    if (finished) {
      this.end(state, whole);
    } else {
      this.show(state, whole);
    }
  }

  withoutHits(without) {
    if (without.length) {
      return ["unasked", "Those that could be asked know nothing of it."];
    }
    if (this.isTest) {
      return ["nobody", "This is the platform's connection test: ctsd works."];
    }
    if (!this.searches) {
      return ["nothing", "ctsd answers that nothing is known of it."];
    }
    return this.searches.length
      ? ["nothing", "Every searcher for this type was asked, and none knows it."]
      : ["nobody", "No searcher of this service takes this type."];
  }

  withoutHitsYet(without) {
    const waits = !this.searches || this.searches.some((one) => one.running || !one.ended);
    return without.length && !waits
      ? ["unasked", "This does not mean that nothing was found."]
      : ["asking", "No finding yet."];
  }

  showDetails(finished) {
    const rows = (this.searches ?? []).map((one) => searchRow(one, finished));
    this.rows.replaceChildren(...rows);
    this.rows.hidden = !this.rows.children.length;
    // Findings stand in the order of the searchers.
    const owners = (this.searches ?? []).flatMap((one) => Array(one.hits).fill(one.searcher));
    this.list.replaceChildren(...this.hits.map((hit, at) => hitItem(hit, owners[at])));
    this.list.hidden = !this.hits.length;
    this.foot.hidden = !this.id;
    const [id, curl] = this.foot.querySelectorAll("code");
    id.textContent = this.id;
    curl.textContent = `curl '${rootOf(this.service)}${this.id}'`;
  }

  show(state, verdict, busy = true) {
    this.card.dataset.state = state;
    this.card.setAttribute("aria-busy", String(busy));
    this.badge.replaceChildren(icon(state), make("span", "", BADGES[state][Number(busy)]));
    this.verdict.textContent = verdict;
  }

  end(state, verdict) {
    this.wait.hidden = true;
    this.show(state, verdict, false);
    said.textContent = `${this.title.textContent}: ${BADGES[state][0]}. ${verdict}`;
  }
}

/** How one searcher's part of a scan stands. */
function searchRow(search, finished) {
  const due = finished ? null : search.due_in_secs;
  const again = due === null ? "" : `; asked again at ${clock(new Date(Date.now() + due * 1000))}`;
  const why = search.reason ? `: ${search.reason}` : "";
  const [state, text] = {
    found: ["found", count(search.hits, "finding")],
    nothing: ["nothing", "nothing"],
    failed: ["unasked", `could not ask${why}${search.final ? "; given up" : again}`],
    later: ["unasked", `no answer yet${why}${again}`],
  }[search.ended] ?? ["asking", "asking"];
  return make(
    "li",
    state,
    icon(search.running ? "asking" : state),
    make("strong", "", search.searcher),
    make(
      "span",
      "",
      search.running && search.ended ? `${text}; asking again now` : text,
      suppressedList(search),
    ),
    search.required ? null : make("span", "chip", "not required"),
  );
}

/** What a searcher has found that is no finding, and by whose word. */
function suppressedList(search) {
  const found = search.suppressed ?? [];
  if (!found.length) {
    return null;
  }
  const lines = found.map((one) => `no hit: ${one.type} of feed ${one.feed}: ${one.by}`);
  if (search.suppressed_more) {
    lines.push(`no hit: ${search.suppressed_more} more`);
  }
  return make("small", "suppressed", lines.join("\n"));
}

/** One finding: its properties. */
function hitItem(hit, searcher) {
  const list = make("dl", "");
  for (const { type, name, value } of hit.props) {
    list.append(make("dt", "", name), make("dd", type === "string" ? "" : type, shown(type, value)));
  }
  return make("li", "", searcher ? make("p", "by", searcher) : null, list);
}

/** A property's value: text, or a link where the protocol means one. */
function shown(type, value) {
  if (type === "uri" && /^https?:\/\//i.test(value)) {
    const link = make("a", "", value);
    link.href = value;
    link.rel = "noopener noreferrer";
    link.target = "_blank";
    return link;
  }
  if (type === "lat_lng" && value) {
    return `${value.lat}, ${value.lng}`;
  }
  return typeof value === "string" ? value : JSON.stringify(value);
}
