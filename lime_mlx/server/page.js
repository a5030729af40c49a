/* The page of the server: it keeps the conversation, asks by the public API, and lets LimeAnswer show what comes.
   All texts of users and models become text, never markup. */
(() => {
  "use strict";
  const at = (id) => document.getElementById(id);
  const KEY = "lime-mlx-key", SOUNDS = /\.(wav|mp3|flac|ogg|opus|aiff?|au|caf)$/i, PEAKS = 240;
  /* The media of the next question, the turns so far, and what can stop the running requests. */
  let waiting = [], turns = [], running = null;

  function make(parent, tag, className = "", text = "") {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== "") element.textContent = text;
    parent?.append(element);
    return element;
  }

  function headers() {
    const key = sessionStorage.getItem(KEY);
    return {"Content-Type": "application/json", ...(key ? {Authorization: `Bearer ${key}`} : {})};
  }

  async function problemOf(response) {
    const body = await response.json().catch(() => null);
    if (response.status === 401) at("key-form").hidden = false;
    return new Error(body?.error?.message ?? `The server answered ${response.status}.`);
  }

  /* What this server has: models and methods. */
  async function start() {
    const response = await fetch("v1/models", {headers: headers()});
    if (!response.ok) throw await problemOf(response);
    at("key-form").hidden = true;
    const {data, lime} = await response.json();
    at("model").replaceChildren(...data.map(({id, lime: about}) => {
      const option = new Option(about.takes.length ? `${id} (${about.takes.map(noun).join(", ")})` : id, id);
      option.dataset.takes = about.takes.join(" ");
      return option;
    }));
    at("model").value = lime.model;
    at("methods").replaceChildren(...["default", ...lime.methods].map((name) => new Option(name)));
    at("method").value = lime.method;
    summarise();
  }

  const noun = (kind) => (kind === "audio" ? "sounds" : "pictures");

  function summarise() {
    const methods = [at("method").value, at("second").value.trim()].filter(Boolean).join(" against ");
    at("chosen").textContent = `${at("model").value}, ${methods}`;
  }

  function tell(problem) {
    at("problem").textContent = problem ? String(problem.message ?? problem) : "";
  }

  /* Pictures and sounds that were chosen, dropped or pasted. */
  async function add(files) {
    for (const file of files) {
      const kind = file.type.startsWith("audio/") || SOUNDS.test(file.name) ? "audio" : "image";
      const medium = await (kind === "audio" ? sound(file) : picture(file));
      waiting.push({kind, file, data: await dataUri(file), view: {kind, name: file.name || `pasted ${kind}`, ...medium}});
    }
    const sounds = waiting.length > 0 && waiting.every(({kind}) => kind === "audio");
    choose(sounds ? "audio" : "image");
    if (sounds && at("question").value === "What is in the picture?") at("question").value = "What do you hear?";
    showWaiting();
  }

  /* A bundled model takes pictures or sounds alone: the first model that takes what is given is chosen. */
  function choose(kind) {
    const options = [...at("model").options], chosen = at("model").selectedOptions[0];
    if (!chosen || chosen.dataset.takes.includes(kind)) return;
    const other = options.find((option) => option.dataset.takes.includes(kind));
    if (other) at("model").value = other.value;
    summarise();
  }

  function dataUri(file) {
    return new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.onerror = () => reject(new Error(`${file.name} cannot be read.`));
      reader.readAsDataURL(file);
    });
  }

  /* Its width and height are those of the upright picture, as the server sees it. */
  function picture(file) {
    const src = URL.createObjectURL(file);
    return new Promise((resolve) => {
      const image = new Image();
      image.onload = () => resolve({src, width: image.naturalWidth, height: image.naturalHeight});
      image.onerror = () => resolve({problem: "This browser cannot show the picture; the server may read it all the same."});
      image.src = src;
    });
  }

  async function sound(file) {
    const src = URL.createObjectURL(file);
    try {
      const buffer = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(await file.arrayBuffer());
      const samples = buffer.getChannelData(0), step = samples.length / PEAKS;
      const wave = Array.from({length: PEAKS}, (_, number) => {
        let most = 0;
        for (let place = Math.floor(number * step); place < (number + 1) * step; place++) most = Math.max(most, Math.abs(samples[place] ?? 0));
        return most;
      });
      const loudest = Math.max(...wave) || 1;
      return {src, seconds: buffer.duration, mapped: buffer.duration, wave: wave.map((height) => height / loudest)};
    } catch {
      return {problem: "This browser cannot play the sound; the server may read it all the same."};
    }
  }

  function showWaiting() {
    at("media").replaceChildren(...waiting.map((medium) => {
      const item = make(null, "li");
      if (medium.kind === "image" && medium.view.src) make(item, "img").src = medium.view.src;
      item.querySelector("img")?.setAttribute("alt", "");
      make(item, "span", "", medium.view.name);
      const button = make(item, "button", "", "Remove");
      button.type = "button";
      button.setAttribute("aria-label", `Remove ${medium.view.name}`);
      button.addEventListener("click", () => {
        waiting = waiting.filter((each) => each !== medium);
        showWaiting();
        at("files").focus();
      });
      return item;
    }));
  }

  /* The conversation as the API takes it. */
  function messages(upTo) {
    return upTo.flatMap(({text, media, answer}) => {
      const parts = media.map(({kind, data}) => kind === "image"
        ? {type: "image_url", image_url: {url: data}}
        : {type: "input_audio", input_audio: {data}});
      const question = {role: "user", content: [...parts, {type: "text", text}]};
      return answer ? [question, {role: "assistant", content: answer}] : [question];
    });
  }

  async function ask() {
    const text = at("question").value.trim();
    if (!text) throw new Error("Write a question first.");
    const turn = {text, media: waiting, answer: ""};
    const methods = [at("method").value.trim() || "none", at("second").value.trim()].filter(Boolean);
    const model = at("model").value;
    const box = make(at("talk"), "article", "turn");
    make(box, "p", "words-of-user", text);
    make(box, "p", "about", [model, ...waiting.map(({view}) => view.name)].join(", "));
    const answers = make(box, "div", "lime-answers");
    const all = [...turns, turn];
    /* Maps come for the pictures first, then for the sounds, each in the order of the conversation. */
    const media = all.flatMap((each) => each.media);
    const shown = ["image", "audio"].flatMap((kind) => media.filter((each) => each.kind === kind).map(({view}) => view));
    running = new AbortController();
    busy(true);
    const tries = methods.map((method) => answer(answers, {model, method, messages: messages(all)}, shown, `Method: ${method}`));
    const results = await Promise.allSettled(tries);
    busy(false);
    const problem = results.find(({status}) => status === "rejected")?.reason;
    const first = results.find(({status, value}) => status === "fulfilled" && value)?.value;
    if (first) {
      turn.answer = first;
      turns = all;
      waiting = [];
      showWaiting();
      at("question").value = "";
      at("question").placeholder = "Ask again about the same";
    } else {
      box.remove();
    }
    if (problem && problem.name !== "AbortError") throw problem;
  }

  /* One answer as it comes; returns its text. */
  async function answer(box, {model, method, messages}, media, title) {
    const column = make(box, "div");
    const note = make(column, "p", "waiting", "The model reads …");
    const response = await fetch("v1/chat/completions", {
      method: "POST",
      headers: headers(),
      signal: running.signal,
      body: JSON.stringify({model, messages, stream: true, lime: {method, words: true, maps: true}}),
    });
    if (!response.ok) {
      column.remove();
      throw await problemOf(response);
    }
    let text = "", view = null;
    const open = () => {
      if (!view) {
        note.remove();
        view = LimeAnswer.show(column, {title, words: [], media});
      }
      return view;
    };
    try {
      for await (const chunk of events(response.body)) {
        if (chunk.error) throw new Error(chunk.error.message);
        const choice = chunk.choices?.[0];
        if (!choice) continue;
        text += choice.delta?.content ?? "";
        if (choice.finish_reason) open().finish({words: choice.lime?.words ?? [], cautions: choice.lime?.warnings ?? []});
        else if (choice.lime?.words) open().append(choice.lime.words);
      }
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    }
    note.remove();
    return text;
  }

  /* The values of a stream of server-sent events. */
  async function* events(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
        if (data === "[DONE]") return;
        if (data) yield JSON.parse(data);
      }
    }
  }

  function busy(is) {
    at("ask").disabled = is;
    at("stop").hidden = !is;
    if (!is) running = null;
  }

  const guarded = (work) => async (event) => {
    event?.preventDefault?.();
    tell("");
    try {
      await work(event);
    } catch (problem) {
      busy(false);
      tell(problem);
    }
  };

  at("ask-form").addEventListener("submit", guarded(ask));
  at("stop").addEventListener("click", () => running?.abort());
  at("clear").addEventListener("click", guarded(() => {
    running?.abort();
    [turns, waiting] = [[], []];
    at("talk").replaceChildren();
    showWaiting();
    at("question").value = "What is in the picture?";
    at("question").focus();
  }));
  at("files").addEventListener("change", guarded(async () => {
    await add([...at("files").files]);
    at("files").value = "";
  }));
  at("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!at("ask").disabled) at("ask-form").requestSubmit();
    }
  });
  for (const id of ["model", "method", "second"]) at(id).addEventListener("input", summarise);
  at("key-form").addEventListener("submit", guarded(async () => {
    sessionStorage.setItem(KEY, at("key").value);
    at("key").value = "";
    await start();
    at("question").focus();
  }));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    at("drop").classList.add("over");
  });
  addEventListener("dragleave", () => at("drop").classList.remove("over"));
  addEventListener("drop", guarded(async (event) => {
    at("drop").classList.remove("over");
    await add([...event.dataTransfer.files]);
  }));
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) guarded(() => add(files))(event);
  });
  guarded(start)();
})();
