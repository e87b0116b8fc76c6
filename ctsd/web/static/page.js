// The page: what the daemon is made of, and the form.

import { Answer } from "./answer.js";
import { HERE, get, rootOf, takesFiles } from "./ask.js";
import { icon, make } from "./text.js";

const STATE_EVERY_MS = 10_000;
const MAX_ANSWERS = 50;
const MAX_SHOWN_CHARS = 300;

const at = (id) => document.getElementById(id);
const form = at("ask");
const type = at("type");
const service = at("service");
const file = at("file");
const answers = at("answers");

// -- what there is

function health(state, text) {
  at("health").dataset.state = state;
  at("health").replaceChildren(icon(state), make("span", "", text));
}

function searcherItem(searcher) {
  let state = "nothing";
  let word = "on";
  if (!searcher.on) {
    state = searcher.broken ? "refused" : "nobody";
    word = searcher.broken ? "broken" : "off";
  } else if (searcher.trouble) {
    state = "unasked";
    word = "trouble";
  } else if (searcher.loading) {
    state = "asking";
    word = "loading";
  }
  const item = make(
    "li",
    searcher.on ? "" : "off",
    make("p", "name", icon(state), make("strong", "", searcher.name), make("span", `word ${state}`, word)),
  );
  if (searcher.mode) {
    item.firstElementChild.append(make("span", "chip", searcher.mode));
  }
  if (searcher.on && !searcher.required) {
    item.firstElementChild.append(make("span", "chip", "not required"));
  }
  for (const [text, className] of [
    [searcher.why_off, "about"],
    [searcher.trouble, "about trouble"],
    [searcher.about, "about"],
  ]) {
    if (text) {
      item.append(make("p", className, text));
    }
  }
  return item;
}

function serviceItem({ name, searchers }) {
  return make(
    "li",
    "",
    make("code", "", rootOf(name)),
    make("p", "about", searchers.length ? searchers.join(", ") : "no searchers"),
  );
}

function offer(services) {
  const chosen = service.value;
  const known = [...service.options].map((option) => option.value);
  if (JSON.stringify(known) !== JSON.stringify(services.map((one) => one.name))) {
    service.replaceChildren(
      ...services.map(({ name }) => new Option(name ? `/${name}/` : "/ (all searchers)", name)),
    );
    service.value = services.some((one) => one.name === chosen) ? chosen : "";
    at("service-field").hidden = services.length < 2;
    serviceChosen();
  }
}

// What was shown last, so that what has not changed is left alone (a selection in it, too).
let lastState = "";

async function refresh() {
  try {
    const { status, json } = await get(`${HERE}console/state`);
    if (status !== 200 || !json) {
      throw new Error("no state");
    }
    if (JSON.stringify(json) !== lastState) {
      lastState = JSON.stringify(json);
      at("searchers").replaceChildren(...json.searchers.map(searcherItem));
      at("services").replaceChildren(...json.services.map(serviceItem));
      offer(json.services);
      at("version").textContent = [json.version, json.process].filter(Boolean).join(", ");
      if (json.trouble) {
        health("unasked", `Can't answer: ${json.trouble}`);
      } else {
        const away = json.searchers.filter(({ broken, trouble }) => broken || trouble);
        const names = away.map(({ name }) => name).join(", ");
        health(names ? "unasked" : "nothing", names ? `Ready, but for ${names}` : "Ready");
      }
    }
  } catch {
    lastState = "";
    health("refused", "ctsd can't be reached");
  }
}

async function keepFresh() {
  for (;;) {
    if (!document.hidden) {
      await refresh();
    }
    await new Promise((resolve) => setTimeout(resolve, STATE_EVERY_MS));
  }
}

// -- the form

function chosenForm() {
  return type.selectedOptions[0].dataset.form ?? "text";
}

function fieldsOf(name) {
  return form.querySelector(`[data-for="${name}"]`);
}

/** The field that comes first for the chosen type. */
function firstField() {
  return fieldsOf(chosenForm()).querySelector("input, textarea");
}

function typeChosen() {
  const option = type.selectedOptions[0];
  const kind = chosenForm();
  for (const fields of form.querySelectorAll("[data-for]")) {
    fields.hidden = fields.dataset.for !== kind;
  }
  if (option.dataset.file !== undefined) {
    fieldsOf("file").hidden = false;
  }
  at("file-optional").hidden = kind === "file";
  if (kind !== "registry" && kind !== "file") {
    firstField().placeholder = option.dataset.hint ?? "";
  }
  problem("");
}

async function serviceChosen() {
  const asked = service.value;
  let takes = true;
  try {
    takes = await takesFiles(asked);
  } catch {
    // The health line says that the daemon is away.
  }
  if (asked === service.value) {
    at("file-note").hidden = takes;
    file.dataset.taken = takes;
  }
}

function problem(text) {
  at("problem").textContent = text;
  at("problem").hidden = !text;
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
  }
  if (text) {
    firstField().setAttribute("aria-invalid", "true");
    firstField().focus();
  }
}

/** What is in the form: the artifact, its file and how it is shown; a string says what is wrong. */
function entered() {
  const kind = chosenForm();
  const text = (id) => at(id).value;
  const artifact = { type: type.value };
  let picked = fieldsOf("file").hidden ? null : (file.files[0] ?? null);
  let shown;
  if (picked && (kind === "file" || !text("long").trim())) {
    shown = picked.name;
    artifact.value = picked.name;
    if (file.dataset.taken === "false") {
      picked = null;
    }
    return { artifact, picked, shown };
  }
  if (kind === "file") {
    return "Choose a file.";
  }
  picked = null;
  if (kind === "number") {
    artifact.value = Number(text("number").trim());
    if (!/^\d+$/.test(text("number").trim())) {
      return "Enter a number.";
    }
    shown = String(artifact.value);
  } else if (kind === "pair") {
    artifact.value = { name: text("pair-name").trim(), value: text("pair-value") };
    shown = `${artifact.value.name}: ${artifact.value.value}`;
    if (!artifact.value.name) {
      return "Enter a name.";
    }
  } else if (kind === "registry") {
    artifact.value = { key: text("registry-key").trim() };
    if (!artifact.value.key) {
      return "Enter a key.";
    }
    for (const [key, id] of [["entry_name", "registry-name"], ["entry_value", "registry-value"]]) {
      if (text(id)) {
        artifact.value[key] = text(id);
      }
    }
    shown = Object.values(artifact.value).join(" · ");
  } else if (kind === "lines") {
    artifact.value = text("lines").split("\n").map((line) => line.trim()).filter(Boolean);
    shown = artifact.value.join(", ");
  } else {
    artifact.value = kind === "text" ? text("text").trim() : text(kind);
    shown = kind === "password" ? "\u2022".repeat(8) : artifact.value;
  }
  if (!artifact.value.length && typeof artifact.value !== "object" && kind !== "number") {
    return "Enter a value.";
  }
  if (Array.isArray(artifact.value) && !artifact.value.length) {
    return "Enter a value.";
  }
  return { artifact, picked, shown };
}

function send(event) {
  event.preventDefault();
  const given = entered();
  if (typeof given === "string") {
    problem(given);
    return;
  }
  problem("");
  const shown = given.shown.trim();
  const answer = new Answer({
    service: service.value,
    type: type.value,
    label: type.selectedOptions[0].textContent,
    shown: shown.length > MAX_SHOWN_CHARS ? `${shown.slice(0, MAX_SHOWN_CHARS)}\u2026` : shown,
  });
  answers.prepend(answer.element);
  at("empty").hidden = true;
  while (answers.children.length > MAX_ANSWERS) {
    answers.lastElementChild.querySelector(".dismiss").click();
  }
  answer.ask({ artifact: given.artifact, file: given.picked });
  if (chosenForm() === "password") {
    at("password").value = "";
  }
  file.value = "";
  if (chosenForm() !== "file") {
    firstField().select();
  }
}

type.addEventListener("change", typeChosen);
service.addEventListener("change", serviceChosen);
form.addEventListener("submit", send);
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    form.requestSubmit();
  }
});
document.addEventListener("dismissed", () => (at("empty").hidden = answers.children.length > 0));
document.addEventListener("visibilitychange", () => document.hidden || refresh());

typeChosen();
serviceChosen();
keepFresh();
at("send").disabled = false;
