// The query page: an operation goes to /graphql with its variables and headers; the answer and the schema are shown.
// A plain script without dependencies, because the page must work where there is neither internet nor Node.
"use strict";

const ENDPOINT = "/graphql";
const TIMEOUT_MS = 60_000;
const TOKEN_NEEDED = 'This server wants a token: put {"token": "…"} into the headers pane.';

// Never the headers: they hold secrets.
const KEPT = ["operation", "variables"];
// Deep enough for [[Type!]!]!
const TYPE_REFERENCE = `${"kind name ofType { ".repeat(5)}kind name${" }".repeat(5)}`;

const INTROSPECTION = `query Introspection {
  __schema {
    queryType { name }
    mutationType { name }
    subscriptionType { name }
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

/** What is wrong with the JSON object in an editor, or "" when it can be sent. */
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

/** The names of the operations in a document, "" for one without a name. Also of one that is just being written. */
function operationNames(document) {
  let heads = document.replace(/"""(?:[^]*?[^\\])??"""|"(?:\\.|[^"\\\n])*"|#.*/g, "");
  // Without brackets, innermost first, only the heads of the definitions are left: "query A ; fragment f on T ;"
  for (let before; before !== heads;) {
    before = heads;
    heads = heads.replace(/\([^(){}]*\)/g, "").replace(/\{[^(){}]*\}/g, ";");
  }
  return heads.split(";").flatMap((head, index, all) => {
    const [, kind, name] = /^\s*(?:(query|mutation|subscription)\b\s*(\w*))?/.exec(head);
    const anonymous = head.trim() === "" && index < all.length - 1;
    return kind || anonymous ? [kind ? name : ""] : [];
  });
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

/** Tab makes two spaces; Escape lets the next Tab leave, for who has only a keyboard. */
function indentWithTab(editor) {
  let leaving = false;
  editor.addEventListener("keydown", (event) => {
    const indents = event.key === "Tab" && !event.shiftKey && !leaving;
    leaving = event.key === "Escape";
    if (!indents) return;
    event.preventDefault();
    // The outdated way, because it is the only one that the browser can undo.
    document.execCommand("insertText", false, "  ");
  });
}

function jumpTo({ line, column }) {
  const linesBefore = operation.value.split("\n").slice(0, line - 1);
  const offset = linesBefore.reduce((sum, text) => sum + text.length + 1, column - 1);
  operation.focus();
  operation.setSelectionRange(offset, offset + 1);
}

// ---- What is kept, and the examples

/** Storage may be forbidden or full; then nothing is kept. */
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

/** What was written by hand before an example was chosen. */
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
  examples.value = "";
  keepTexts();
  readTexts();
}

function chooseExample() {
  byId("forget").disabled = !chosenSaved();
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
  examples.value = all.find(same)?.value ?? "";
  if (!examples.value) own = written();
}

// ---- Saved operations and links: never with headers

const SAVED = "recents.saved";

function savedOperations() {
  try {
    const all = JSON.parse(localStorage.getItem(SAVED) ?? "[]");
    return Array.isArray(all) ? all.filter(({ name, operation }) => name && typeof operation === "string") : [];
  } catch {
    return [];
  }
}

function keepSaved(all) {
  try {
    localStorage.setItem(SAVED, JSON.stringify(all));
  } catch {
    notice("This browser keeps nothing: its storage is full or forbidden.");
  }
  offerSaved();
}

function offerSaved() {
  const all = savedOperations();
  const option = ({ name, operation, variables }) => {
    const made = element("option", { value: `saved:${name}`, textContent: name });
    Object.assign(made.dataset, { operation, variables });
    return made;
  };
  byId("saved").replaceChildren(...all.map(option));
  byId("saved").hidden = all.length === 0;
}

const chosenSaved = () => (examples.value.startsWith("saved:") ? examples.value.slice("saved:".length) : null);

function save() {
  const name = byId("save-name").value.trim();
  if (!name) {
    notice("Write a name beside the button first.");
    byId("save-name").focus();
    return;
  }
  const others = savedOperations().filter((saved) => saved.name !== name);
  keepSaved([...others, { name, ...written() }]);
  examples.value = `saved:${name}`;
  byId("forget").disabled = !chosenSaved();
  byId("save-name").value = "";
  notice(`Saved as ${name}`);
}

function forget() {
  const name = chosenSaved();
  keepSaved(savedOperations().filter((saved) => saved.name !== name));
  own = written();
  examples.value = "";
  byId("forget").disabled = true;
  notice(`Forgot ${name}`);
}

function linkTo(texts) {
  const bytes = new TextEncoder().encode(JSON.stringify(texts));
  const base64 = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return `${location.origin}${location.pathname}#${base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

/** What a link brings, or null when it is damaged. */
function textsOfLink(hash) {
  try {
    const binary = atob(hash.replaceAll("-", "+").replaceAll("_", "/"));
    const texts = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(binary, (c) => c.charCodeAt(0))));
    const isWhole = typeof texts?.operation === "string" && typeof texts.variables === "string";
    return isWhole ? { operation: texts.operation, variables: texts.variables } : null;
  } catch {
    return null;
  }
}

async function copyLink() {
  const link = linkTo(written());
  history.replaceState(null, "", link);
  try {
    await navigator.clipboard.writeText(link);
    notice("The link is copied: it holds the operation and its variables, no headers.");
  } catch {
    notice("The link is in the address line: it holds the operation and its variables, no headers.");
  }
}

function openLink() {
  const hash = location.hash.slice(1);
  if (!hash) return;
  const texts = textsOfLink(hash);
  if (!texts) {
    showAnswer({ status: "Damaged link", text: "", errors: [{ message: "This link is damaged: nothing was opened." }] });
    return;
  }
  write(texts);
  edited();
}

function notice(text) {
  byId("status").textContent = text;
  byId("status").classList.remove("failed");
}

// ---- Completion

const offered = byId("completions");
/** What is offered, where the word begins that it replaces, and which one is chosen; null when nothing is. */
let completion = null;

function offerCompletions({ always = false } = {}) {
  const caret = operation.selectionStart;
  const text = operation.value.slice(0, caret);
  const wanted = schema && operation.selectionEnd === caret && (always || /[_A-Za-z]\w*$/.test(text));
  const { from, options } = wanted ? completions(text, schema) : { from: 0, options: [] };
  if (options.length === 0) return closeCompletions();
  completion = { from, options: options.slice(0, 50), chosen: 0 };
  offered.replaceChildren(...completion.options.map(completionItem));
  offered.hidden = false;
  operation.setAttribute("aria-expanded", "true");
  choose(0);
}

function completionItem({ name, type, description }, index) {
  const [line] = (description ?? "").split("\n");
  const detail = type ? `: ${typeText(type)}` : "";
  const item = element("li", { id: `completion-${index}`, role: "option" }, element("b", { textContent: name }), detail);
  if (line) item.append(" ", element("span", { className: "hint", textContent: line }));
  // Before the editor loses the focus.
  item.addEventListener("mousedown", (event) => {
    event.preventDefault();
    choose(index);
    accept();
  });
  return item;
}

function typeText({ kind, name, ofType }) {
  if (kind === "NON_NULL") return `${typeText(ofType)}!`;
  return kind === "LIST" ? `[${typeText(ofType)}]` : name;
}

function choose(index) {
  completion.chosen = (index + completion.options.length) % completion.options.length;
  [...offered.children].forEach((item, at) => item.setAttribute("aria-selected", String(at === completion.chosen)));
  operation.setAttribute("aria-activedescendant", `completion-${completion.chosen}`);
  offered.children[completion.chosen].scrollIntoView({ block: "nearest" });
}

function accept() {
  const { from, options, chosen } = completion;
  closeCompletions();
  operation.setSelectionRange(from, operation.selectionStart);
  document.execCommand("insertText", false, options[chosen].insert ?? options[chosen].name);
  closeCompletions();
}

function closeCompletions() {
  completion = null;
  offered.hidden = true;
  operation.setAttribute("aria-expanded", "false");
  operation.removeAttribute("aria-activedescendant");
}

function completeWithKeys(event) {
  if (event.key === " " && event.ctrlKey) {
    event.preventDefault();
    return offerCompletions({ always: true });
  }
  if (!completion || event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = {
    ArrowDown: () => choose(completion.chosen + 1),
    ArrowUp: () => choose(completion.chosen - 1),
    Enter: accept,
    Tab: accept,
    Escape: closeCompletions,
  };
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  action();
}

// ---- Asking the server

/** Sends a body; whatever happens comes back as errors in GraphQL's form, never as an exception. */
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

function requestHeaders() {
  const result = new Headers({
    // With this type the status tells what happened; with application/json alone, errors may come with 200.
    Accept: "application/graphql-response+json, application/json;q=0.9",
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

/** Indents JSON as text: parsing it would round the numbers beyond 2^53 that contents may hold. */
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

/** The variables go as they were written, for the same reason as in `pretty`. */
function requestBody() {
  const name = operationName.disabled ? "" : `,"operationName":${JSON.stringify(operationName.value)}`;
  return `{"query":${JSON.stringify(operation.value)},"variables":${variables.value.trim() || "{}"}${name}}`;
}

async function run() {
  if (running) return;
  const wrong = [variables, headers].find((editor) => showObjectProblem(editor));
  if (wrong) {
    showAnswer({ status: "Not sent", text: "", errors: [{ message: objectProblem(wrong) }] });
    wrong.focus();
    return;
  }
  running = true;
  byId("status").textContent = "Running …";
  const answer = await ask(requestBody());
  running = false;
  showAnswer(answer);
  // The token may have come only now.
  if (answer.errors.length === 0 && !schema) loadSchema();
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
  // Line 0 stands for no place in the document.
  for (const place of (locations ?? []).filter(({ line }) => line > 0)) {
    item.append(" ", linkButton(`line ${place.line}, column ${place.column}`, () => jumpTo(place)));
  }
  return item;
}

// ---- The schema

/** What introspection answered, its types by name; null until it did. */
let schema = null;

/** The way through the documentation; the last view is shown. A view without a type is the overview. */
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
  const { types, ...roots } = answer.data.__schema;
  const shown = types.filter((type) => !type.name.startsWith("__"));
  shown.sort((one, other) => one.name.localeCompare(other.name));
  const rootNames = Object.fromEntries(Object.entries(roots).map(([root, type]) => [root, type?.name]));
  schema = { roots: Object.values(roots).filter(Boolean), rootNames, types: new Map(shown.map((type) => [type.name, type])) };
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

/** Shows the last view after a click; the keyboard goes on from its heading, as the clicked button is gone. */
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
  const related = [...(type.interfaces ?? []), ...(type.possibleTypes ?? [])].map(({ name }) => typeButton(name));
  const items = related.map((button) => element("li", {}, button));
  return items.length > 0 ? [...page, heading("Related types"), list(items)] : page;
}

const members = (type) => type.fields ?? type.inputFields ?? type.enumValues ?? [];
const typeItem = (type) => element("li", {}, typeButton(type.name), ...described(type));

/** A field, an input field or an enum's value; with the name of its type when it stands outside of it. */
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

/** A description; what stands in backticks is code. */
function described({ description, isDeprecated, deprecationReason }) {
  const texts = description ? [description] : [];
  if (isDeprecated) texts.push(`Deprecated: ${deprecationReason ?? ""}`);
  return texts.map((text) => {
    const parts = text.split("`").map((part, at) => (at % 2 ? element("code", { textContent: part }) : part));
    return element("p", {}, ...parts);
  });
}

// ---- The beginning

function listen() {
  // Before the other keys: what is offered is accepted with Tab.
  operation.addEventListener("keydown", completeWithKeys);
  operation.addEventListener("input", () => offerCompletions());
  operation.addEventListener("blur", closeCompletions);
  indentWithTab(operation);
  for (const editor of [operation, variables]) editor.addEventListener("input", edited);
  headers.addEventListener("input", () => showObjectProblem(headers));
  examples.addEventListener("change", chooseExample);
  byId("save").addEventListener("click", save);
  byId("forget").addEventListener("click", forget);
  byId("copy-link").addEventListener("click", copyLink);
  window.addEventListener("hashchange", openLink);
  byId("run").addEventListener("click", run);
  byId("docs-back").addEventListener("click", goBack);
  byId("docs-reload").addEventListener("click", loadSchema);
  filter.addEventListener("input", () => {
    views.at(-1).filter = filter.value;
    showDocs();
    docs.scrollTop = 0;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    run();
  });
}

offerSaved();
restore();
listen();
openLink();
loadSchema();
