// What can be written at a place in a GraphQL document, from the text before it and the introspected schema.
// A plain script without dependencies; `graphiql.js` shows what it finds.
"use strict";

const OPERATIONS = { query: "queryType", mutation: "mutationType", subscription: "subscriptionType" };

const innermost = (type) => (type.ofType ? innermost(type.ofType) : type.name);
const named = (members, name) => members?.find((member) => member.name === name);

/** The tokens of a text; strings and comments are none. */
function tokensOf(text) {
  const blank = text.replace(/"""(?:[^]*?[^\\])??"""|"(?:\\.|[^"\\\n])*"?|#.*/g, (found) => (found[0] === "#" ? "" : " 0 "));
  return blank.match(/\.\.\.|[_A-Za-z0-9]+|[^\s,]/g) ?? [];
}

/** Where the end of a text is: the innermost bracket that is open, and what it holds. `null` outside of all of them. */
function placeAfter(text, schema) {
  const open = [];
  const top = () => open.at(-1);
  const of = (name) => schema.types.get(name);
  // What the next "{" outside of brackets opens; what stands before it.
  let opens = schema.rootNames.queryType;
  let word = "";
  for (const token of tokensOf(text)) {
    const isName = /^[_A-Za-z]/.test(token);
    const place = top();
    if (token === "}" || token === ")" || token === "]") {
      open.pop();
    } else if (!place) {
      if (token === "{") open.push({ kind: "selection", type: of(opens) });
      else if (token === "(") open.push({ kind: "variables" });
      else if (OPERATIONS[token]) opens = schema.rootNames[OPERATIONS[token]];
      else if (isName && word === "on") opens = token;
      word = token;
    } else if (place.kind === "selection") {
      if (token === "{") {
        const type = place.spread ? place.type : of(place.returns);
        Object.assign(place, { spread: false, on: false });
        open.push({ kind: "selection", type });
      } else if (token === "(") {
        open.push({ kind: "values", members: place.field?.args ?? [], used: [] });
      } else if (token === "...") {
        Object.assign(place, { spread: true, on: false });
      } else if (isName && place.directive) {
        place.directive = false;
      } else if (isName && place.spread && place.on) {
        Object.assign(place, { spread: false, on: false, returns: token });
      } else if (isName && place.spread) {
        if (token === "on") place.on = true;
        else place.spread = false;
      } else if (isName) {
        place.field = named(place.type?.fields, token);
        place.returns = place.field && innermost(place.field.type);
      } else if (token === "@") {
        Object.assign(place, { directive: true, spread: false });
      }
    } else if (place.kind === "values") {
      const value = place.value;
      if (token === "{") {
        place.value = null;
        open.push({ kind: "values", members: of(value && innermost(value.type))?.inputFields ?? [], used: [] });
      } else if (token === "[") {
        place.value = null;
        open.push({ kind: "list", member: value });
      } else if (token === ":") {
        place.value = named(place.members, place.name) ?? {};
      } else if (token !== "$" && value) {
        place.value = null;
      } else if (isName) {
        place.name = token;
        place.used.push(token);
      }
    } else if (place.kind === "list" && token === "{") {
      open.push({ kind: "values", members: of(place.member?.type && innermost(place.member.type))?.inputFields ?? [], used: [] });
    }
  }
  return { place: top() ?? null, word };
}

/** What fits after a text; each with what is inserted. */
function fitting(text, schema) {
  const { place, word } = placeAfter(text, schema);
  const composite = () => [...schema.types.values()].filter((type) => ["OBJECT", "INTERFACE", "UNION"].includes(type.kind));
  if (!place) return word === "on" ? composite() : [...Object.keys(OPERATIONS), "fragment"].map((name) => ({ name }));
  if (place.kind === "selection") {
    if (place.spread && place.on) return composite();
    if (place.spread) return [{ name: "on" }];
    return [...(place.type?.fields ?? []), { name: "__typename", description: "The name of the type." }];
  }
  if (place.kind === "values") {
    if (!place.value) {
      const unused = place.members.filter((member) => !place.used.includes(member.name));
      return unused.map((member) => ({ ...member, insert: `${member.name}: ` }));
    }
    return valuesOf(place.value, schema);
  }
  return place.kind === "list" ? valuesOf(place.member, schema) : [];
}

function valuesOf(member, schema) {
  const name = member?.type && innermost(member.type);
  if (name === "Boolean") return [{ name: "true" }, { name: "false" }];
  return schema.types.get(name)?.enumValues ?? [];
}

/** What can be written where `text` ends: where the word begins that it replaces, and what fits, the likeliest first. */
function completions(text, schema) {
  const [word] = /[_A-Za-z0-9]*$/.exec(text);
  const from = text.length - word.length;
  // Nothing is completed in a comment or a string.
  const line = text.slice(text.lastIndexOf("\n") + 1).replace(/\\"/g, "");
  if (line.includes("#") || (line.match(/"/g) ?? []).length % 2 === 1) return { from, options: [] };
  const lower = word.toLowerCase();
  const all = fitting(text.slice(0, from), schema);
  const begins = all.filter(({ name }) => name.toLowerCase().startsWith(lower));
  const contains = all.filter(({ name }) => !begins.some((one) => one.name === name) && name.toLowerCase().includes(lower));
  const options = [...begins, ...contains];
  const isWritten = options.length === 1 && options[0].name === word;
  return { from, options: isWritten ? [] : options };
}
