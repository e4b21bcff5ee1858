// The query page: an operation goes to /graphql with its variables and headers; the answer and the schema are shown.
// A plain script without dependencies, because the page must work where there is neither internet nor Node.
"use strict";

const ENDPOINT = "/graphql";
const TIMEOUT_MS = 60_000;
/** Maximum number of events of a subscription that are shown. */
const SHOWN_EVENTS = 50;
const TOKEN_NEEDED = 'This server wants a token: put {"token": "…"} into the headers pane.';

const NOT_A_LINK = "The link to this operation is damaged: nothing was taken from it. Ask for it again.";
const SAVED = "recents.saved";

// Never the headers: they contain secrets.
const KEPT = ["operation", "variables"];
// Deep enough for [[Type!]!]!
const TYPE_REFERENCE = `${"kind name ofType { ".repeat(5)}kind name${" }".repeat(5)}`;

const INTROSPECTION = `query Introspection {
  __schema {
    queryType { name }
    mutationType { name }
    subscriptionType { name }
    directives { name args { ...input } }
    types {
      kind name description specifiedByURL
      fields(includeDeprecated: true) {
        name description isDeprecated deprecationReason
        args { ...input }
        type { ...reference }
      }
      inputFields { ...input }
      enumValues(includeDeprecated: true) { name description isDeprecated deprecationReason }
      interfaces { ...reference }
      possibleTypes { ...reference }
    }
  }
}
fragment input on __InputValue { name description defaultValue type { ...reference } }
fragment reference on __Type { ${TYPE_REFERENCE} }`;

const byId = (id) => document.getElementById(id);
const operation = byId("operation");
const variables = byId("variables");
const headers = byId("headers");
const examples = byId("examples");
const operationName = byId("operation-name");
const docs = byId("docs");
const filter = byId("docs-filter");
const completions = byId("completions");

/** Makes an element; texts among the children become text, never markup. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function linkButton(textContent, onclick) {
  return element("button", { type: "button", className: "link", textContent, onclick });
}

// ---- The editors

/** Returns the error in the JSON object of an editor, or "" when it can be sent. */
function objectProblem(editor) {
  const name = editor.labels[0].textContent;
  if (editor.value.trim() === "") return "";
  try {
    const value = JSON.parse(editor.value);
    if (Object(value) !== value || Array.isArray(value)) return `${name} must be a JSON object: {"name": value}`;
    return editor === headers ? headersProblem(value) : "";
  } catch (error) {
    return `${name} are not JSON: ${error.message}`;
  }
}

function headersProblem(values) {
  const wrong = Object.keys(values).find((name) => typeof values[name] !== "string");
  if (wrong !== undefined) return `Headers: the value of ${wrong} must be a text in quotes`;
  try {
    new Headers(values);
    return "";
  } catch (error) {
    return `Headers cannot be sent: ${error.message}`;
  }
}

function showObjectProblem(editor) {
  const problem = objectProblem(editor);
  byId(`${editor.id}-problem`).textContent = problem;
  editor.setAttribute("aria-invalid", String(problem !== ""));
  return problem;
}

/** Returns the operations of a document: kind and name ("" without one). The document may be incomplete. */
function operations(document) {
  let heads = document.replace(/"""(?:[^]*?[^\\])??"""|"(?:\\.|[^"\\\n])*"|#.*/g, "");
  // Without brackets, innermost first, only the heads of the definitions are left: "query A ; fragment f on T ;"
  for (let before; before !== heads;) {
    before = heads;
    heads = heads.replace(/\([^(){}]*\)/g, "").replace(/\{[^(){}]*\}/g, ";");
  }
  return heads.split(";").flatMap((head, index, all) => {
    const [, kind, name] = /^\s*(?:(query|mutation|subscription)\b\s*(\w*))?/.exec(head);
    const anonymous = head.trim() === "" && index < all.length - 1;
    return kind || anonymous ? [{ kind: kind ?? "query", name: kind ? name : "" }] : [];
  });
}

const operationNames = (document) => operations(document).map(({ name }) => name);

/** Returns whether the selected operation is a subscription. */
function subscribes() {
  const all = operations(operation.value);
  const one = operationName.disabled ? all[0] : all.find(({ name }) => name === operationName.value);
  return one?.kind === "subscription";
}

function offerOperationNames() {
  const names = operationNames(operation.value);
  const several = names.length > 1;
  const chosen = operationName.value;
  const option = (name) => element("option", { value: name, textContent: name || "(without a name)" });
  operationName.replaceChildren(...names.map(option));
  if (names.includes(chosen)) operationName.value = chosen;
  operationName.disabled = !several;
}

/** Tab inserts two spaces; after Escape the next Tab leaves the editor, for keyboard users. */
function indentWithTab(editor) {
  let leaving = false;
  editor.addEventListener("keydown", (event) => {
    const indents = event.key === "Tab" && !event.shiftKey && !leaving;
    leaving = event.key === "Escape";
    if (!indents) return;
    event.preventDefault();
    // Deprecated, but the only way that the browser can undo.
    document.execCommand("insertText", false, "  ");
  });
}

function jumpTo({ line, column }) {
  const linesBefore = operation.value.split("\n").slice(0, line - 1);
  const offset = linesBefore.reduce((sum, text) => sum + text.length + 1, column - 1);
  operation.focus();
  operation.setSelectionRange(offset, offset + 1);
}

// ---- Stored state, and the examples

/** Storage may be forbidden or full; then nothing is stored. */
function keepTexts() {
  try {
    for (const name of KEPT) localStorage.setItem(`recents.${name}`, byId(name).value);
  } catch {}
}

function kept(name) {
  try {
    return localStorage.getItem(`recents.${name}`);
  } catch {
    return null;
  }
}

const written = () => ({ operation: operation.value, variables: variables.value });
const textsOf = (option) => ({ operation: option.dataset.operation, variables: option.dataset.variables });

/** The user's text from before an example was chosen. */
let own = null;

function write(texts) {
  operation.value = texts.operation;
  variables.value = texts.variables;
  readTexts();
}

function readTexts() {
  showObjectProblem(variables);
  offerOperationNames();
}

function edited() {
  own = written();
  choose("");
  keepTexts();
  readTexts();
}

/** Only a saved operation can be deleted. */
function choose(value) {
  examples.value = value;
  byId("forget").disabled = examples.selectedOptions[0]?.parentElement.id !== "saved";
}

function chooseExample() {
  choose(examples.value);
  const texts = examples.value ? textsOf(examples.selectedOptions[0]) : own;
  if (!texts) return;
  write(texts);
  keepTexts();
}

function restore() {
  const all = [...examples.options].filter((option) => option.value);
  const first = textsOf(all[0]);
  write({ operation: kept("operation") ?? first.operation, variables: kept("variables") ?? first.variables });
  const same = (option) => JSON.stringify(textsOf(option)) === JSON.stringify(written());
  choose(all.find(same)?.value ?? "");
  if (!examples.value) own = written();
}

const areTexts = (value) => typeof value?.operation === "string" && typeof value.variables === "string";

// ---- Saved operations

/** Read again every time, because another tab may have saved, too. */
function savedOperations() {
  try {
    const saved = JSON.parse(localStorage.getItem(SAVED));
    return Array.isArray(saved) ? saved.filter((one) => areTexts(one) && typeof one.name === "string") : [];
  } catch {
    return [];
  }
}

function offerSaved() {
  const chosen = examples.value;
  const options = savedOperations().map(({ name, ...texts }) => {
    const option = element("option", { value: `saved:${name}`, textContent: name });
    Object.assign(option.dataset, { operation: texts.operation, variables: texts.variables });
    return option;
  });
  byId("saved").replaceChildren(...options);
  byId("saved").hidden = options.length === 0;
  choose([...examples.options].some(({ value }) => value === chosen) ? chosen : "");
}

/** Returns whether the browser stored it. */
function replaceSaved(saved) {
  try {
    localStorage.setItem(SAVED, JSON.stringify(saved));
  } catch {
    say("Not saved: this browser keeps nothing more for this page", true);
    return false;
  }
  offerSaved();
  return true;
}

const withoutSaved = (name) => savedOperations().filter((one) => one.name !== name);
const chosenName = () => examples.selectedOptions[0].textContent;

function askName() {
  const name = byId("forget").disabled ? operationNames(operation.value).find(Boolean) : chosenName();
  byId("save-name").value = name ?? "";
  byId("save-dialog").showModal();
  byId("save-name").select();
}

function save(event) {
  event.preventDefault();
  const name = byId("save-name").value.trim();
  if (!name) return;
  byId("save-dialog").close();
  const saved = [...withoutSaved(name), { name, ...written() }];
  saved.sort((one, other) => one.name.localeCompare(other.name));
  if (!replaceSaved(saved)) return;
  choose(`saved:${name}`);
  say(`Saved ${name}`);
}

/** The editors keep their text. */
function forget() {
  const name = chosenName();
  own = written();
  if (!replaceSaved(withoutSaved(name))) return;
  say(`Forgot ${name}`);
  // The button is disabled now, and the keyboard should not start at the top.
  examples.focus();
}

// ---- Links to an operation

/** After the #, so that it is sent to no server and written to no log. */
function linkTo(texts) {
  const bytes = new TextEncoder().encode(JSON.stringify(texts));
  const binary = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  const base64url = btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  return `${location.href.split("#")[0]}#${base64url}`;
}

/** The texts of a link's fragment, or null when it is damaged. */
function linkedTexts(fragment) {
  try {
    const binary = atob(fragment.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(binary, (byte) => byte.charCodeAt(0));
    const value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    return areTexts(value) ? value : null;
  } catch {
    return null;
  }
}

async function copyLink() {
  const href = linkTo(written());
  // Without HTTPS, except on localhost, there is no clipboard; then the link is only shown.
  const copied = await navigator.clipboard?.writeText(href).then(() => true, () => false);
  say(copied ? "Link copied: " : "Copy this link: ", false, element("a", { href, textContent: href }));
}

/** Fills the editors from the page's address. It runs nothing, so that users read a link's operation first. */
function openLink() {
  const fragment = location.hash.slice(1);
  if (!fragment) return;
  const texts = linkedTexts(fragment);
  if (!texts) {
    const text = byId("result").textContent;
    showAnswer({ status: "Damaged link", text, errors: [{ message: NOT_A_LINK }] });
    return;
  }
  write(texts);
  edited();
  // Otherwise a reload would discard later changes.
  history.replaceState(null, "", location.href.split("#")[0]);
  say("Filled from the link, not run yet");
}

// ---- Requests

/** Sends a body; returns every failure as errors in GraphQL's form, never as an exception. */
async function ask(body) {
  const started = performance.now();
  const answer = await post(body).then(understand, failure);
  return { ...answer, status: `${answer.status} · ${Math.round(performance.now() - started)} ms` };
}

async function post(body) {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const request = { method: "POST", headers: requestHeaders(), body, cache: "no-store", signal };
  const response = await fetch(ENDPOINT, request);
  return { response, text: await response.text() };
}

function failure(error) {
  const late = error.name === "TimeoutError";
  const message = late ? "The server did not answer in time." : "The server cannot be reached. Is it running?";
  return { status: "No answer", text: "", data: null, errors: [{ message }] };
}

// With this type the status tells the result; with application/json alone, errors may come with 200.
const ANSWERS = "application/graphql-response+json, application/json;q=0.9";

function requestHeaders(accept = ANSWERS) {
  const result = new Headers({
    Accept: accept,
    "Content-Type": "application/json",
  });
  const given = JSON.parse(headers.value.trim() || "{}");
  for (const [name, value] of Object.entries(given)) result.set(name, value);
  return result;
}

function understand({ response, text }) {
  const answer = parsed(text);
  const errors = Array.isArray(answer?.errors) ? [...answer.errors] : [];
  if (answer === undefined) errors.push({ message: "The answer is not JSON." });
  if (response.status === 401) errors.unshift({ message: TOKEN_NEEDED });
  if (!response.ok && errors.length === 0) errors.push({ message: `The server answered ${response.status}.` });
  const status = `${response.status} ${response.statusText}`.trim();
  return { status, text: answer === undefined ? text : pretty(text), data: answer?.data, errors };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Indents JSON as text, because parsing would round numbers above 2^53. */
function pretty(json) {
  let depth = 0;
  const newline = () => `\n${"  ".repeat(depth)}`;
  const tokens = json.match(/\{\s*\}|\[\s*\]|[{}[\],:]|"[^"\\]*(?:\\.[^"\\]*)*"|[^\s{}[\],:"]+/g) ?? [];
  const indented = tokens.map((token) => {
    const opens = token === "{" || token === "[";
    const closes = token === "}" || token === "]";
    depth += Number(opens) - Number(closes);
    if (opens || token === ",") return token + newline();
    if (closes) return newline() + token;
    return token === ":" ? ": " : token;
  });
  return indented.join("");
}

// ---- Running an operation

let running = false;

/** Ends the running subscription; null when there is none. */
let stop = null;

/** Sends the variables as text, for the same reason as in `pretty`. */
function requestBody() {
  const name = operationName.disabled ? "" : `,"operationName":${JSON.stringify(operationName.value)}`;
  return `{"query":${JSON.stringify(operation.value)},"variables":${variables.value.trim() || "{}"}${name}}`;
}

async function run() {
  if (stop) {
    stop();
    return;
  }
  if (running) return;
  const wrong = [variables, headers].find((editor) => showObjectProblem(editor));
  if (wrong) {
    showAnswer({ status: "Not sent", text: "", errors: [{ message: objectProblem(wrong) }] });
    wrong.focus();
    return;
  }
  if (subscribes()) {
    await follow(requestBody());
    return;
  }
  running = true;
  byId("status").textContent = "Running …";
  const answer = await ask(requestBody());
  running = false;
  showAnswer(answer);
  // The token may be new.
  if (answer.errors.length === 0 && !schema) loadSchema();
}

/** Shows the events of a subscription as they arrive, the newest on top, until the user stops it. */
async function follow(body) {
  const stopper = new AbortController();
  stop = () => stopper.abort();
  byId("run").textContent = "Stop";
  showAnswer({ status: "Waiting for the first event …", text: "", errors: [] });
  let [count, complete, shown] = [0, false, []];
  const said = () => (count === 1 ? "1 event" : `${count} events`);
  const heed = (event) => {
    const lines = event.split("\n");
    if (lines.includes("event: complete")) complete = true;
    const data = lines.find((line) => line.startsWith("data: "))?.slice("data: ".length);
    if (!lines.includes("event: next") || !data) return;
    count += 1;
    shown = [`# ${count}, ${new Date().toLocaleTimeString()}\n${pretty(data)}`, ...shown].slice(0, SHOWN_EVENTS);
    const errors = parsed(data)?.errors ?? [];
    showAnswer({ status: said(), text: shown.join("\n\n"), errors });
  };
  try {
    const request = { method: "POST", headers: requestHeaders("text/event-stream"), body, cache: "no-store", signal: stopper.signal };
    const response = await fetch(ENDPOINT, request);
    if (!response.headers.get("content-type")?.startsWith("text/event-stream")) {
      showAnswer(understand({ response, text: await response.text() }));
      return;
    }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      const events = (rest + read.value).split("\n\n");
      rest = events.pop();
      events.forEach(heed);
    }
    say(complete ? `${said()}, complete` : `${said()}; the connection ended, run it again`, !complete);
  } catch (error) {
    if (stopper.signal.aborted) say(`${said()}, stopped`);
    else showAnswer(failure(error));
  } finally {
    stop = null;
    byId("run").textContent = "Run";
  }
}

function say(text, failed = false, ...more) {
  byId("status").replaceChildren(text, ...more);
  byId("status").classList.toggle("failed", failed);
  byId("result-title").closest(".pane-title").scrollIntoView({ block: "nearest" });
}

function showAnswer({ status, text, errors }) {
  byId("status").textContent = status;
  byId("status").classList.toggle("failed", errors.length > 0);
  byId("errors").replaceChildren(...errors.map(errorItem));
  byId("errors").hidden = errors.length === 0;
  byId("result").textContent = text;
  byId("result").scrollTop = 0;
  // On a narrow page it is below the editors; on a wide one nothing moves.
  byId("result-title").closest("section").scrollIntoView({ block: "nearest" });
}

function errorItem({ message, extensions, path, locations }) {
  const item = element("li");
  if (extensions?.code) item.append(element("strong", { textContent: extensions.code }), " ");
  item.append(element("span", { className: "message", textContent: message ?? "an error without a message" }));
  if (path) item.append(" ", element("span", { className: "hint", textContent: `at ${path.join(".")}` }));
  // Line 0 is not a place in the document.
  for (const place of (locations ?? []).filter(({ line }) => line > 0)) {
    item.append(" ", linkButton(`line ${place.line}, column ${place.column}`, () => jumpTo(place)));
  }
  return item;
}

// ---- The schema

/** The result of introspection, its types by name; null before the response. */
let schema = null;

/** The history of documentation views; the last one is shown. A view without a type is the overview. */
const views = [{ type: null, filter: "", scroll: 0 }];

async function loadSchema() {
  const unusable = objectProblem(headers);
  const body = JSON.stringify({ query: INTROSPECTION });
  const answer = unusable ? { errors: [{ message: unusable }] } : await ask(body);
  if (!answer.data?.__schema) {
    const problems = element("ul", { className: "problems" }, ...answer.errors.map(errorItem));
    docs.replaceChildren(element("p", { textContent: "The schema could not be loaded." }), problems);
    return;
  }
  const { types, directives, ...roots } = answer.data.__schema;
  const shown = types.filter((type) => !type.name.startsWith("__"));
  shown.sort((one, other) => one.name.localeCompare(other.name));
  const byName = (all) => new Map(all.map((one) => [one.name, one]));
  const rootNames = { query: roots.queryType?.name, mutation: roots.mutationType?.name, subscription: roots.subscriptionType?.name };
  schema = {
    roots: Object.values(roots).filter(Boolean), rootNames, types: byName(shown), directives: byName(directives),
  };
  showDocs();
  document.body.dataset.ready = "true";
}

function showDocs() {
  if (!schema) return;
  const { type, filter: words } = views.at(-1);
  const known = schema.types.get(type);
  const page = words.trim() ? foundPage(words.trim().toLowerCase()) : known ? typePage(known) : overview();
  docs.replaceChildren(...page);
  byId("docs-back").disabled = views.length < 2;
}

/** Shows the last view after a click; moves the focus to its heading, because the clicked button is gone. */
function turnPage() {
  filter.value = views.at(-1).filter;
  showDocs();
  docs.scrollTop = views.at(-1).scroll;
  docs.querySelector("h3").focus({ preventScroll: true });
}

function openType(type) {
  views.at(-1).scroll = docs.scrollTop;
  views.push({ type, filter: "", scroll: 0 });
  turnPage();
}

function goBack() {
  if (views.length > 1) views.pop();
  turnPage();
}

const heading = (text) => element("h3", { textContent: text, tabIndex: -1 });
const typeButton = (name) => linkButton(name, () => openType(name));
const list = (items) => element("ul", {}, ...items);

function overview() {
  const items = (name) => members(schema.types.get(name)).map((member) => memberItem(member));
  const roots = schema.roots.flatMap(({ name }) => [heading(name), list(items(name))]);
  return [...roots, heading("All types"), list([...schema.types.values()].map(typeItem))];
}

function foundPage(words) {
  const matches = ({ name, description, args }) =>
    `${name} ${description ?? ""}`.toLowerCase().includes(words) || Boolean(args?.some(matches));
  const types = [...schema.types.values()];
  const inType = (type) => members(type).filter(matches).map((member) => memberItem(member, type.name));
  const fields = types.flatMap(inType);
  const found = types.filter(matches).map(typeItem);
  return [heading(`Fields (${fields.length})`), list(fields), heading(`Types (${found.length})`), list(found)];
}

function typePage(type) {
  const kind = element("p", { className: "hint", textContent: type.kind.toLowerCase().replace("_", " ") });
  const page = [heading(type.name), kind, ...described(type), list(members(type).map((member) => memberItem(member)))];
  if (type.specifiedByURL) {
    page.push(element("a", { href: type.specifiedByURL, rel: "noreferrer", textContent: type.specifiedByURL }));
  }
  return [...page, ...typeList("Implements", type.interfaces), ...typeList("Possible types", type.possibleTypes)];
}

function typeList(title, references) {
  const items = (references ?? []).map(({ name }) => typeItem(schema.types.get(name)));
  return items.length > 0 ? [heading(title), list(items)] : [];
}

const members = (type) => type.fields ?? type.inputFields ?? type.enumValues ?? [];
const typeItem = (type) => element("li", {}, typeButton(type.name), ...described(type));

/** A field, an input field or an enum value; with the name of its type when it is shown outside of the type. */
function memberItem(member, owner) {
  const place = owner ? [typeButton(owner), "."] : [];
  const item = element("li", {}, element("code", {}, ...place, ...signed(member)), ...described(member));
  if (member.args?.length) item.append(list(member.args.map((argument) => memberItem(argument))));
  return item;
}

function signed({ name, type, defaultValue }) {
  const parts = [element("b", { textContent: name })];
  if (type) parts.push(": ", ...typeReference(type));
  if (defaultValue != null) parts.push(` = ${defaultValue}`);
  return parts;
}

function typeReference({ kind, name, ofType }) {
  if (kind === "NON_NULL") return [...typeReference(ofType), "!"];
  if (kind === "LIST") return ["[", ...typeReference(ofType), "]"];
  return [typeButton(name)];
}

/** A description; text in backticks is code. */
function described({ description, isDeprecated, deprecationReason }) {
  const texts = description ? [description] : [];
  if (isDeprecated) texts.push(`Deprecated: ${deprecationReason ?? ""}`);
  return texts.map((text) => {
    const parts = text.split("`").map((part, at) => (at % 2 ? element("code", { textContent: part }) : part));
    return element("p", {}, ...parts);
  });
}

// ---- Completion: where the caret is

const TOKEN = /"""(?:[^]*?[^\\])??"""|"""[^]*$|"(?:\\.|[^"\\\n])*"?|#.*|\.\.\.|[$@]?[A-Za-z_]\w*|[$@]|-?\d[\w.+-]*|[^\s,]/g;
const COMPOSITE = ["OBJECT", "INTERFACE", "UNION"];
const INPUT = ["SCALAR", "ENUM", "INPUT_OBJECT"];

const tokensOf = (text) => text.match(TOKEN) ?? [];
const isName = (token) => /^[A-Za-z_]/.test(token);
const typeNamed = (name) => schema.types.get(name);
const root = (kind) => typeNamed(schema.rootNames[kind]);
const nullable = (type) => (type?.kind === "NON_NULL" ? type.ofType : type);

/** The type inside of the lists and the exclamation marks. */
function innermost(type) {
  return type?.ofType ? innermost(type.ofType) : typeNamed(type?.name);
}

/** Returns whether the text ends inside a comment or a string, where nothing is completed. */
function endsInText(text) {
  const last = tokensOf(text).at(-1) ?? "";
  if (!text.endsWith(last)) return false;
  if (last.startsWith('"""')) return last.length < 6 || !last.endsWith('"""') || last.endsWith('\\"""');
  return last.startsWith("#") || /^"(?:\\.|[^"\\])*$/.test(last);
}

/**
 * Reads a document, which may be incomplete, and returns the bracket that is open at its end:
 * its kind, its `type` or `inputs`, and the token `after` which something special is expected.
 */
function openBracket(tokens) {
  const open = [{ kind: "document" }];
  for (const token of tokens) {
    const top = open.at(-1);
    if (/^["#]/.test(token)) {
      if (token[0] === '"') top.value = null;
    } else if (/^[)\]}]$/.test(token)) {
      if (open.length > 1 && !(top.kind === "definitions" && token === "]")) open.pop();
    } else if (/^[({[]$/.test(token)) {
      const inner = opened(top, token);
      if (inner) open.push(inner);
    } else {
      READ[top.kind](top, token);
    }
  }
  return open.at(-1);
}

/** Returns the context that a bracket opens at this place. */
function opened(top, bracket) {
  if (bracket === "(" && top.kind === "document") return { kind: "definitions" };
  if (bracket === "(") return { kind: "inputs", inputs: top.inputs ?? [], used: [] };
  const value = top.kind === "list" ? top.type : top.value;
  const selects = top.kind === "document" || top.kind === "selection";
  if (bracket === "{" && selects) {
    const without = top.kind === "document" ? root("query") : top.after === "..." ? top.type : undefined;
    const type = top.next ?? without;
    Object.assign(top, { next: undefined, inputs: undefined, after: "" });
    return { kind: "selection", type, after: "" };
  }
  // The bracket of a list in a variable's type.
  if (bracket === "[" && top.kind === "definitions" && top.after === ":") return null;
  top.value = null;
  if (bracket === "[") return { kind: "list", type: nullable(value)?.ofType };
  return { kind: "inputs", inputs: innermost(value)?.inputFields ?? [], used: [] };
}

/** The effect of a token in each kind of bracket. */
const READ = {
  document(top, token) {
    if (top.after === "on") Object.assign(top, { next: typeNamed(token), after: "type" });
    else if (token === "on" && top.after === "fragment name") top.after = "on";
    else if (top.after === "fragment") top.after = "fragment name";
    else if (token === "fragment") top.after = "fragment";
    else if (["query", "mutation", "subscription"].includes(token)) Object.assign(top, { next: root(token), after: token });
  },
  selection(top, token) {
    if (token === "...") Object.assign(top, { after: "...", next: undefined });
    // A directive only changes the inputs of the next parenthesis.
    else if (token[0] === "@") Object.assign(top, { inputs: schema.directives.get(token.slice(1))?.args });
    else if (top.after === "..." && token === "on") top.after = "on";
    else if (top.after === "...") top.after = "";
    else if (top.after === "on") Object.assign(top, { next: typeNamed(token), after: "type" });
    else if (isName(token)) {
      const field = top.type?.fields?.find(({ name }) => name === token);
      Object.assign(top, { next: innermost(field?.type), inputs: field?.args, after: "" });
    }
  },
  inputs(top, token) {
    if (token === ":") top.value = top.input?.type;
    else if (isName(token) && !top.value) {
      top.input = top.inputs.find(({ name }) => name === token);
      top.used.push(token);
    } else top.value = null;
  },
  list() {},
  definitions(top, token) {
    if (token === ":") top.after = ":";
    else if (token === "=") Object.assign(top, { value: top.given, after: "" });
    else if (top.after === ":" && isName(token)) Object.assign(top, { given: typeNamed(token), after: "" });
    else if (token[0] === "$") Object.assign(top, { value: null, after: "" });
  },
};

// ---- Completion: the options

const typeText = (type) => typeReference(type).map((part) => part.textContent ?? part).join("");
const memberOption = (member, after = "") =>
  ({ name: member.name, after, type: member.type ? typeText(member.type) : "", description: member.description });
const typeOption = ({ name, kind, description }) =>
  ({ name, after: "", type: kind.toLowerCase().replace("_", " "), description });
const wordOption = (name, type = "", description = "") => ({ name, after: "", type, description });

/** The variables that are defined before the caret, or the names of all fragments. */
function defined(text, pattern) {
  return [...text.matchAll(pattern)].map(([, name, type]) => wordOption(name, type));
}

function valueOptions(type, before) {
  const inner = innermost(type);
  const words = inner?.name === "Boolean" ? [wordOption("true", "Boolean"), wordOption("false", "Boolean")] : [];
  const values = (inner?.enumValues ?? []).map((value) => ({ ...memberOption(value), type: inner.name }));
  const head = before.slice(before.search(/[^}]*$/));
  const definitions = /[({]/.test(head) ? before : head;
  const known = defined(definitions, /(\$\w+)\s*:\s*([\w[\]!]+)/g);
  // The last definition of a name is that of the operation in which the caret is.
  const latest = [...new Map(known.map((one) => [one.name, one])).values()];
  const fits = ({ type: written }) => !inner || written.replace(/[[\]!]/g, "") === inner.name;
  return [...values, ...words, ...latest.filter(fits)];
}

const OPTIONS = {
  document({ after, next }) {
    if (after === "on") return typesOf(COMPOSITE);
    if (after === "fragment name") return [wordOption("on")];
    if (after === "fragment" || next) return [];
    return ["query", ...(root("mutation") ? ["mutation"] : []), "fragment"].map((word) => wordOption(word));
  },
  selection({ type, after }) {
    if (after === "on") return type ? typesWithin(type) : typesOf(COMPOSITE);
    if (after === "...") return [wordOption("on"), ...defined(operation.value, /\bfragment\s+(?!on\b)(\w+)\s+on\s+(\w+)/g)];
    if (after === "type" || !type) return [];
    const fields = (type.fields ?? []).map((field) => memberOption(field));
    return [...fields, wordOption("__typename", "String!", "The name of the type.")];
  },
  inputs({ inputs, used, value }, before) {
    if (value) return valueOptions(value, before);
    return inputs.filter(({ name }) => !used.includes(name)).map((input) => memberOption(input, ": "));
  },
  list: ({ type }, before) => valueOptions(type, before),
  definitions({ after, value }, before) {
    if (after === ":") return typesOf(INPUT);
    return value ? valueOptions(value, before).filter(({ name }) => !name.startsWith("$")) : [];
  },
};

const typesOf = (kinds) => [...schema.types.values()].filter(({ kind }) => kinds.includes(kind)).map(typeOption);

/** The possible object types of a type. */
function typesWithin(type) {
  const others = [...(type.possibleTypes ?? []), ...(type.interfaces ?? [])];
  return [...others.map(({ name }) => typeNamed(name)), type].map(typeOption);
}

/** Returns the options at the caret, best first, and the text that they replace. */
function completionsAt(text, caret) {
  const none = { start: caret, options: [] };
  const [word] = /\$?(?:[A-Za-z_]\w*)?$/.exec(text.slice(0, caret));
  const start = caret - word.length;
  const before = text.slice(0, start);
  if (!schema || /[\w@]$/.test(before) || endsInText(before)) return none;
  const bracket = openBracket(tokensOf(before));
  const lower = word.toLowerCase();
  const place = ({ name }) => {
    const at = name.toLowerCase().indexOf(lower);
    return name === word ? 0 : at > 0 ? 2 : at + 1;
  };
  const found = OPTIONS[bracket.kind](bracket, before).filter(({ name }) => name.toLowerCase().includes(lower));
  // Sorting keeps the schema's order among equals.
  return { start, word, options: found.sort((one, other) => place(one) - place(other)) };
}

// ---- Completion: the list

/** The current options, the text that they replace and the selected option; null without options. */
let offer = null;

function closeCompletions() {
  offer = null;
  completions.hidden = true;
  byId("completions-count").textContent = "";
  operation.removeAttribute("aria-activedescendant");
}

/** While typing, only after the first letter of a name; with `asked`, also without one. */
function complete(asked) {
  closeCompletions();
  const caret = operation.selectionStart;
  if (caret !== operation.selectionEnd) return;
  const { start, word, options } = completionsAt(operation.value, caret);
  const finished = options.length === 1 && options[0].name === word;
  if (options.length === 0 || (!asked && (!word || finished))) return;
  offer = { start, caret, options, chosen: 0 };
  completions.replaceChildren(...options.map(completionItem));
  completions.hidden = false;
  placeCompletions();
  chooseCompletion(0);
  byId("completions-count").textContent = `${options.length} completions`;
}

function completionItem({ name, type, description }, index) {
  const item = element("li", { id: `completion-${index}`, role: "option" });
  item.append(element("code", {}, element("b", { textContent: name })), element("code", { textContent: type }));
  const [line] = (description ?? "").trim().split("\n");
  if (line) item.append(element("span", { className: "hint", textContent: line }));
  // The focus stays in the editor.
  item.addEventListener("pointerdown", (event) => event.preventDefault());
  item.addEventListener("mousedown", (event) => event.preventDefault());
  item.addEventListener("click", () => accept(index));
  return item;
}

function chooseCompletion(index) {
  const items = [...completions.children];
  offer.chosen = (index + items.length) % items.length;
  items.forEach((item, at) => item.setAttribute("aria-selected", String(at === offer.chosen)));
  operation.setAttribute("aria-activedescendant", items[offer.chosen].id);
  // Only the list scrolls; scrollIntoView would move the page, too.
  const { offsetTop, offsetHeight } = items[offer.chosen];
  const hidden = offsetTop + offsetHeight - completions.clientHeight;
  completions.scrollTop = Math.min(offsetTop, Math.max(hidden, completions.scrollTop));
}

/** Below the beginning of the name, within the editor's width. */
function placeCompletions() {
  const style = getComputedStyle(operation);
  const lines = operation.value.slice(0, offer.start).split("\n");
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `${style.fontSize} ${style.fontFamily}`;
  const left = pen.measureText(lines.at(-1).replaceAll("\t", "  ")).width + parseFloat(style.paddingLeft) - operation.scrollLeft;
  const top = lines.length * parseFloat(style.lineHeight) + parseFloat(style.paddingTop) - operation.scrollTop + 4;
  const rightmost = operation.clientWidth - completions.offsetWidth;
  completions.style.left = `${Math.max(0, Math.min(left, rightmost))}px`;
  completions.style.top = `${Math.max(0, Math.min(top, operation.offsetHeight))}px`;
}

function accept(index) {
  const { start, caret, options } = offer;
  const { name, after } = options[index];
  const following = operation.value.slice(caret);
  // The rest of the name, when the caret is inside of it.
  const [rest] = /^\w*/.exec(following);
  const hasColon = /^\s*:/.test(following.slice(rest.length));
  operation.focus();
  operation.setSelectionRange(start, caret + rest.length);
  // As in `indentWithTab`, so that it can be undone.
  document.execCommand("insertText", false, hasColon ? name : name + after);
  closeCompletions();
}

function completionKeys(event) {
  if (event.isComposing) return;
  const plain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey;
  if (event.key === " " && event.ctrlKey) {
    event.preventDefault();
    complete(true);
    return;
  }
  if (!offer) return;
  const actions = {
    ArrowDown: () => chooseCompletion(offer.chosen + 1),
    ArrowUp: () => chooseCompletion(offer.chosen - 1),
    Enter: () => accept(offer.chosen),
    Tab: () => accept(offer.chosen),
    Escape: closeCompletions,
  };
  if (plain && actions[event.key]) {
    event.preventDefault();
    // Neither an indent, nor the Escape that lets Tab leave.
    event.stopImmediatePropagation();
    actions[event.key]();
  } else if (/^(Arrow|Home|End|Page|Enter)/.test(event.key)) {
    closeCompletions();
  }
}

function listenForCompletion() {
  operation.addEventListener("keydown", completionKeys);
  operation.addEventListener("input", (event) => {
    const types = event.inputType?.startsWith("insertText") && event.data?.length === 1;
    if (types || (offer && event.inputType?.startsWith("delete"))) complete(false);
    else closeCompletions();
  });
  operation.addEventListener("scroll", () => offer && placeCompletions());
  for (const leaving of ["blur", "pointerdown"]) operation.addEventListener(leaving, closeCompletions);
}

// ---- Start

function listen() {
  // Before the other handlers: keys that the list uses must not reach them.
  listenForCompletion();
  indentWithTab(operation);
  for (const editor of [operation, variables]) editor.addEventListener("input", edited);
  headers.addEventListener("input", () => showObjectProblem(headers));
  examples.addEventListener("change", chooseExample);
  byId("run").addEventListener("click", run);
  byId("save").addEventListener("click", askName);
  byId("save-cancel").addEventListener("click", () => byId("save-dialog").close());
  byId("save-dialog").addEventListener("submit", save);
  byId("forget").addEventListener("click", forget);
  byId("copy-link").addEventListener("click", copyLink);
  window.addEventListener("hashchange", openLink);
  window.addEventListener("storage", ({ key }) => key === SAVED && offerSaved());
  byId("docs-back").addEventListener("click", goBack);
  byId("docs-reload").addEventListener("click", loadSchema);
  filter.addEventListener("input", () => {
    views.at(-1).filter = filter.value;
    showDocs();
    docs.scrollTop = 0;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || byId("save-dialog").open) return;
    event.preventDefault();
    run();
  });
}

offerSaved();
restore();
listen();
openLink();
loadSchema();
