// The page of `seqcl serve`. Text from the server becomes text nodes only, never HTML.
import { html, render, useEffect, useRef, useState } from "./preact.js";

const SLOTS = ["one", "two"];
const KEY = "seqcl-key";

class NoKey extends Error {}

async function ask(path, body) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...(body && { "Content-Type": "application/json" }), ...(key && { Authorization: `Bearer ${key}` }) };
  const answer = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  const found = await answer.json();
  if (answer.status === 401) throw new NoKey(found.error);
  if (!answer.ok && !found.items) throw new Error(found.error);
  return found;
}

const nameOf = (item) => item.title ?? `item ${item.item}`;
const digits = (value) => (value == null ? "" : Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(4));
const parameters = (values) => new URLSearchParams(values).toString();

function App() {
  const [models, setModels] = useState([]);
  const [chosen, setChosen] = useState({ one: "", two: "" });
  const [history, setHistory] = useState([]);
  const [k, setK] = useState(10);
  const [seen, setSeen] = useState(true);
  const [error, setError] = useState(null);

  const told = (problem) => setError(problem);
  const load = () =>
    ask("models").then((found) => {
      setModels(found.models);
      setChosen({ one: found.default, two: "" });
      setError(null);
    }, told);
  useEffect(() => void load(), []);

  const add = (item) => setHistory((items) => [...items, item]);
  const remove = (place) => setHistory((items) => items.filter((_, other) => other !== place));
  const first = models.find((model) => model.name === chosen.one);
  if (error instanceof NoKey) return html`<${KeyForm} message=${error.message} again=${load} />`;
  return html`
    <header>
      <h1>seqcl</h1>
      <${Choice} label="Model" name="one" models=${models} value=${chosen.one} change=${setChosen} />
      ${models.length > 1 && html`<${Choice} label="Beside it" name="two" models=${models} value=${chosen.two} change=${setChosen} none="no other" />`}
    </header>
    ${error && html`<p class="note" role="alert">${error.message}</p>`}
    <div class="columns">
      <div>
        <section aria-label="History">
          <h2>History, oldest first</h2>
          <${Search} model=${chosen.one} add=${add} told=${told} />
          ${first?.users && html`<${User} model=${chosen.one} set=${setHistory} told=${told} />`}
          <ol class="history">
            ${history.map((item, place) => html`
              <li key=${place}>
                <span>${nameOf(item)} <span class="id">${item.title && item.item}</span></span>
                <button aria-label=${`Remove ${nameOf(item)}`} onClick=${() => remove(place)}>✕</button>
              </li>`)}
          </ol>
          ${history.length > 0
            ? html`<p><button onClick=${() => setHistory([])}>Clear</button></p>`
            : html`<p class="soft">Search for an item to begin.</p>`}
          <div class="row">
            <div><label for="k">Items to recommend</label>
              <input id="k" type="number" min="1" max="100" value=${k} onChange=${(event) => setK(Math.min(100, Math.max(1, Math.round(+event.target.value) || 10)))} /></div>
            <label class="check"><input type="checkbox" checked=${seen} onChange=${(event) => setSeen(event.target.checked)} /> without items of the history</label>
          </div>
        </section>
      </div>
      <div class="lists" aria-live="polite">
        ${SLOTS.filter((slot) => chosen[slot]).map((slot) => html`
          <${Recommended} key=${slot + chosen[slot]} slot=${slot} model=${chosen[slot]} history=${history} k=${k} seen=${seen} add=${add} told=${told} />`)}
      </div>
    </div>
    <${Figures} chosen=${chosen} told=${told} />`;
}

function KeyForm({ message, again }) {
  const field = useRef();
  const send = (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, field.current.value);
    again();
  };
  return html`
    <form onSubmit=${send}>
      <h1>seqcl</h1>
      <p class="note" role="alert">${message}</p>
      <label for="key">Key</label> <input id="key" type="password" ref=${field} autocomplete="off" /> <button>Go on</button>
    </form>`;
}

function Choice({ label, name, models, value, change, none }) {
  return html`
    <div>
      <label for=${name}>${label}</label>
      <select id=${name} value=${value} onChange=${(event) => change((before) => ({ ...before, [name]: event.target.value }))}>
        ${none && html`<option value="">${none}</option>`}
        ${models.map((model) => html`<option value=${model.name}>${model.name}${model.model && model.name !== model.model ? ` (${model.model})` : ""}</option>`)}
      </select>
    </div>`;
}

function Search({ model, add, told }) {
  const [query, setQuery] = useState("");
  const [found, setFound] = useState([]);
  const [at, setAt] = useState(0);
  const last = useRef(0);
  useEffect(() => {
    const mine = ++last.current;
    if (!query.trim() || !model) return setFound([]);
    const wait = setTimeout(() => {
      ask(`items?${parameters({ query: query.slice(0, 200), model })}`).then((answer) => {
        if (mine !== last.current) return;
        setFound(answer.items);
        setAt(0);
      }, told);
    }, 100);
    return () => clearTimeout(wait);
  }, [query, model]);
  const take = (item) => {
    add(item);
    setQuery("");
    setFound([]);
  };
  const keys = {
    ArrowDown: () => setAt((at + 1) % found.length),
    ArrowUp: () => setAt((at + found.length - 1) % found.length),
    Enter: () => take(found[at]),
    Escape: () => setFound([]),
  };
  const pressed = (event) => {
    if (!found.length || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  };
  useEffect(() => document.getElementById(`found-${at}`)?.scrollIntoView({ block: "nearest" }), [at]);
  return html`
    <div class="search">
      <label for="search">Search by title or id</label>
      <input id="search" role="combobox" autocomplete="off" aria-autocomplete="list" aria-controls="found" aria-expanded=${found.length > 0}
        aria-activedescendant=${found.length ? `found-${at}` : null} value=${query} onInput=${(event) => setQuery(event.target.value)} onKeyDown=${pressed} />
      ${found.length > 0 && html`
        <ul id="found" role="listbox" aria-label="Items found">
          ${found.map((item, place) => html`
            <li id=${`found-${place}`} role="option" aria-selected=${place === at} onMouseEnter=${() => setAt(place)} onClick=${() => take(item)}>
              ${nameOf(item)} <span class="id">${item.title && item.item}</span>
            </li>`)}
        </ul>`}
    </div>`;
}

function User({ model, set, told }) {
  const field = useRef();
  const send = (event) => {
    event.preventDefault();
    const user = field.current.value.trim();
    if (user) ask(`users/${encodeURIComponent(user)}?${parameters({ model })}`).then((answer) => { set(answer.items); told(null); }, told);
  };
  return html`
    <form class="row" onSubmit=${send}>
      <div><label for="user">Or take the history of a user</label> <input id="user" ref=${field} size="12" autocomplete="off" /></div>
      <button>Take</button>
    </form>`;
}

function Recommended({ slot, model, history, k, seen, add, told }) {
  const [answer, setAnswer] = useState(null);
  const last = useRef(0);
  useEffect(() => {
    const mine = ++last.current;
    if (!history.length) return setAnswer(null);
    const body = { items: history.map((item) => item.item), model, k, exclude_seen: seen, why: true, details: true };
    ask("recommend", body).then((found) => {
      if (mine !== last.current) return;
      setAnswer(found);
      told(null);
    }, told);
  }, [history, model, k, seen]);
  const items = answer?.items ?? [];
  const [low, high] = [Math.min(...items.map((item) => item.score)), Math.max(...items.map((item) => item.score))];
  return html`
    <section class=${slot} aria-label=${`Recommended by ${model}`}>
      <h2>${model}</h2>
      ${answer?.error && html`<p class="note">${answer.error}</p>`}
      ${answer?.unknown?.length > 0 && html`<p class="note">Not known to this model: ${answer.unknown.join(", ")}</p>`}
      ${!answer && html`<p class="soft">The recommendations appear here.</p>`}
      <ol class="recommended">
        ${items.map((item) => html`
          <li key=${item.item}>
            ${item.picture && html`<img src=${item.picture} alt="" loading="lazy" />`}
            <div class="text">
              <div><span class="name">${nameOf(item)}</span> <span class="id">${item.title && item.item}</span></div>
              <div class="score"><meter min=${Math.min(low, high - 1e-9)} max=${high} value=${item.score} aria-hidden="true"></meter> ${digits(item.score)}</div>
              ${item.attributes && html`<div class="soft">${Object.values(item.attributes).map((value) => [value].flat().join(" ")).join(" · ")}</div>`}
              ${item.because?.length > 0 && html`<div class="soft">near ${item.because.map((one) => `${nameOf(one)} (${Number(one.similarity.toFixed(2))})`).join(", ")}</div>`}
            </div>
            <button aria-label=${`Add ${nameOf(item)} to the history`} onClick=${() => add(item)}>+</button>
          </li>`)}
      </ol>
    </section>`;
}

function Figures({ chosen, told }) {
  const [known, setKnown] = useState({});
  useEffect(() => {
    for (const name of Object.values(chosen))
      if (name && !known[name]) ask(`models/${encodeURIComponent(name)}`).then((found) => setKnown((before) => ({ ...before, [name]: found })), told);
  }, [chosen]);
  const shown = SLOTS.map((slot) => ({ slot, ...known[chosen[slot]] })).filter((model) => model.name);
  if (!shown.length) return null;
  const head = html`<tr><th></th>${shown.map((model) => html`<th class=${`${model.slot}-text`}>${model.name}</th>`)}</tr>`;
  const names = Object.keys(shown[0].test ?? shown[0].valid ?? {});
  const cutoff = names.includes("ndcg@10") ? "@10" : (names.find((name) => name.startsWith("ndcg@")) ?? "@").slice(4);
  const metrics = ["recall", "ndcg", "mrr", "coverage"].map((name) => name + cutoff).filter((name) => names.includes(name));
  const slices = Object.entries(shown.find((model) => model.slices)?.slices ?? {}).flatMap(([group, parts]) => Object.entries(parts).map(([part, { users }]) => [group, part, users]));
  const part = shown[0].test ? "test" : "valid";
  return html`
    <section aria-label="Figures">
      <h2>Figures</h2>
      <p class="soft">${shown.map((model) => `${model.name}: ${model.kind}, ${model.model ?? "model"} on ${model.data?.name ?? "its data"}, ${model.items.toLocaleString("en")} items`).join(" · ")}</p>
      ${metrics.length > 0 && html`
        <h3>${part === "test" ? "Test" : "Validation"}</h3>
        <div class="wide"><table><thead>${head}</thead><tbody>
          ${metrics.map((metric) => html`<tr><td>${metric}</td>${shown.map((model) => html`<td>${digits(model[part]?.[metric])}</td>`)}</tr>`)}
        </tbody></table></div>`}
      ${slices.length > 0 && html`
        <h3>Slices of the test, ndcg${cutoff}</h3>
        <div class="wide"><table><thead>${head}</thead><tbody>
          ${slices.map(([group, name, users]) => html`<tr><td>${group.replaceAll("_", " ")}: ${name}, ${users} users</td>${shown.map((model) => html`<td>${digits(model.slices?.[group]?.[name]?.metrics?.["ndcg" + cutoff])}</td>`)}</tr>`)}
        </tbody></table></div>`}
      ${shown.some((model) => model.history?.length > 1) && html`
        <h3>Training</h3>
        <div class="charts">
          <${Chart} title="loss" of=${(row) => row.loss} shown=${shown} />
          <${Chart} title=${`validation ndcg${cutoff}`} of=${(row) => row[`valid_ndcg${cutoff}`]} shown=${shown} />
        </div>`}
    </section>`;
}

function Chart({ title, of, shown }) {
  const lines = shown.map((model) => ({ slot: model.slot, points: (model.history ?? []).map((row) => [row.epoch, of(row)]).filter(([, y]) => y != null) })).filter((line) => line.points.length);
  if (!lines.length) return null;
  const [xs, ys] = [0, 1].map((axis) => lines.flatMap((line) => line.points.map((point) => point[axis])));
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const x = (value) => 60 + (330 * (value - left)) / (right - left || 1);
  const y = (value) => 150 - (130 * (value - low)) / (high - low || 1);
  return html`
    <figure>
      <figcaption>${title}</figcaption>
      <svg viewBox="0 0 400 180" role="img" aria-label=${`${title} over epochs ${left} to ${right}, between ${digits(low)} and ${digits(high)}`}>
        <line class="axis" x1="60" y1="150" x2="390" y2="150" /><line class="axis" x1="60" y1="20" x2="60" y2="150" />
        <text x="55" y="153" text-anchor="end">${digits(low)}</text><text x="55" y="24" text-anchor="end">${digits(high)}</text>
        <text x="60" y="168">epoch ${left}</text><text x="390" y="168" text-anchor="end">${right}</text>
        ${lines.map((line) => html`<polyline class=${`line ${line.slot}`} points=${line.points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ")} />`)}
      </svg>
    </figure>`;
}

render(html`<${App} />`, document.body);
