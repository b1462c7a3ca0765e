"use strict";
// Everything that comes from the server is shown as text: nothing here writes HTML.

const $ = (id) => document.getElementById(id);
let asked = 0;

async function fetchJson(path, body) {
  const response = await fetch(path, body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function say(text, isError) {
  $("note").textContent = text;
  $("note").classList.toggle("error", Boolean(isError));
}

// A line is a list of [text, class, is marked].
function fillCode(table, lines, first) {
  table.replaceChildren(...lines.map((pieces, at) => {
    const row = document.createElement("tr");
    const code = document.createElement("td");
    row.append(document.createElement("td"), code);
    row.firstChild.textContent = first + at;
    for (const [text, kind, isMarked] of pieces) {
      const piece = document.createElement(isMarked ? "mark" : "span");
      piece.textContent = text;
      if (kind) piece.className = kind;
      code.append(piece);
    }
    return row;
  }));
}

async function toggleAttention(hit, button, table, share) {
  const isOn = button.getAttribute("aria-pressed") !== "true";
  try {
    if (isOn && !hit.attention) hit.attention = await fetchJson("api/attention", { text: hit.text });
    fillCode(table, isOn ? hit.attention.lines : hit.lines, hit.start_line);
    share.textContent = isOn ? hit.attention.share : "";
    button.setAttribute("aria-pressed", String(isOn));
  } catch (error) {
    say(error.message, true);
  }
}

function show(hit) {
  const article = $("hit").content.cloneNode(true).firstElementChild;
  const part = (name) => article.querySelector("." + name);
  part("place").textContent = hit.place;
  part("symbol").textContent = hit.what;
  part("score").textContent = hit.score;
  for (const [name, value] of hit.explanation) {
    const row = part("explanation").querySelector("table").insertRow();
    row.insertCell().textContent = name;
    row.insertCell().textContent = value;
  }
  part("explanation").hidden = hit.explanation.length === 0;
  fillCode(part("code"), hit.lines, hit.start_line);
  const button = part("attention");
  button.addEventListener("click", () => toggleAttention(hit, button, part("code"), part("share")));
  return article;
}

async function search(event) {
  event.preventDefault();
  const number = ++asked;
  say("searching …");
  const body = { query: $("query").value };
  for (const name of FIELDS) body[name] = $(name).value;
  try {
    const answer = await fetchJson("api/search", body);
    if (number !== asked) return;  // a later question is on its way
    $("hits").replaceChildren(...answer.hits.map(show));
    say([`${answer.hits.length || "no"} hits`, ...answer.notes].join("\n"));
  } catch (error) {
    if (number !== asked) return;
    $("hits").replaceChildren();
    say(error.message, true);
  }
}

const FIELDS = ["language", "path", "kind", "repository", "mode", "limit"];
$("form").addEventListener("submit", search);
$("query").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) search(event);
});
fetchJson("api/about").then((about) => {
  $("about").textContent = about.text;
  for (const [id, names] of [["repository", about.repositories], ["kind", about.kinds]]) {
    for (const name of names) $(id).append(new Option(name, name));
  }
}, (error) => say(error.message, true));
