"use strict";
// The page says everything without this script; it sorts, filters, enlarges, folds, and keeps that in the address.
(() => {
  const root = document.documentElement, all = (what, from = document) => [...from.querySelectorAll(what)];
  root.classList.add("js");
  const state = new URLSearchParams();
  const remember = () => {
    const text = state.toString(), place = location.hash.slice(1).split("?")[0];
    try { history.replaceState(null, "", "#" + place + (text ? "?" + text : "")); } catch { /* kept by the page alone */ }
  };

  const key = (row, at) => {
    const cell = row.cells[at], told = cell.dataset.value ?? cell.textContent.trim().replace(/\u2212/g, "-").replace(/[\u202f\u00a0]/g, "");
    const number = /^[<>≥≤]?\s*[-+]?\d/.test(told) ? parseFloat(told.replace(/^[<>≥≤]\s*/, "")) : NaN;
    return [number, told.toLowerCase()];
  };
  const sort = (table, at, down) => {
    const body = table.tBodies[0], sign = down ? -1 : 1;
    const rows = [...body.rows].map((row) => [key(row, at), row]);
    rows.sort(([[a, s]], [[b, t]]) => (isNaN(a) && isNaN(b) ? sign * s.localeCompare(t) : isNaN(a) ? 1 : isNaN(b) ? -1 : sign * (a - b)));
    body.append(...rows.map(([, row]) => row));
    all("thead tr:last-child > th[aria-sort]", table).forEach((head) => head.setAttribute("aria-sort", head.cellIndex === at ? (down ? "descending" : "ascending") : "none"));
  };
  all("table.sortable").forEach((table) => {
    all("thead tr:last-child > th", table).forEach((head) => {
      if (head.dataset.plain !== undefined || !head.textContent.trim() || table.tBodies[0].rows.length < 2) return;
      const button = document.createElement("button");
      button.type = "button";
      if (head.querySelector("a")) { button.setAttribute("aria-label", "Sort by " + head.textContent); head.append(button); } else { button.append(...head.childNodes); head.append(button); }
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        sort(table, head.cellIndex, down);
        state.set("sort-" + table.id, head.cellIndex + (down ? "d" : "u"));
        remember();
      });
    });
  });

  const filter = (input) => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean), table = document.getElementById(input.dataset.filter);
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    const told = document.querySelector(`[data-count="${input.dataset.filter}"]`);
    if (told) told.textContent = words.length ? `${shown} of ${table.tBodies[0].rows.length}` : "";
  };
  all("[data-filter]").forEach((input) => input.addEventListener("input", () => {
    filter(input);
    input.value ? state.set("show-" + input.dataset.filter, input.value) : state.delete("show-" + input.dataset.filter);
    remember();
  }));

  const folds = all("details");
  folds.forEach((fold, at) => fold.addEventListener("toggle", () => {
    const open = folds.map((one, k) => (one.open ? k : -1)).filter((k) => k >= 0).join(".");
    state.set("open", open);
    remember();
  }));

  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-label", "Enlarged pictures");
  document.body.append(dialog);
  const enlarge = (from) => {
    dialog.replaceChildren();
    dialog.style.cssText = from.closest("[style]")?.style.cssText ?? "";
    const close = document.createElement("button"), large = document.createElement("div");
    close.type = "button"; close.textContent = "Close"; close.addEventListener("click", () => dialog.close());
    large.className = "large tiles";
    const figures = all("figure", from), tiles = all(".tile", from);
    large.append(...(figures.length ? figures : tiles).map((one) => one.cloneNode(true)));
    dialog.append(close, large);
    const maps = tiles.filter((tile) => tile.querySelector(".over"));
    if (maps.length > 1) {
      const compare = document.createElement("div"), label = document.createElement("label"), slider = document.createElement("input");
      compare.className = "compare";
      const [below, above] = [maps[0].cloneNode(true), maps[1].cloneNode(true)];
      slider.type = "range"; slider.min = 0; slider.max = 100; slider.value = 50;
      const move = () => { above.style.clipPath = `inset(0 0 0 ${slider.value}%)`; };
      slider.addEventListener("input", move); move();
      compare.append(below, above);
      label.append("Left the first map, right the second: move to compare ", slider);
      dialog.append(compare, label);
    }
    dialog.showModal();
  };
  all("[data-enlarge]").forEach((group) => {
    const button = document.createElement("button");
    button.type = "button"; button.className = "enlarge"; button.textContent = "Enlarge";
    button.setAttribute("aria-label", "Enlarge the pictures of " + (group.closest("li, th")?.querySelector(".detail")?.textContent ?? "this image"));
    button.addEventListener("click", () => enlarge(group));
    group.addEventListener("click", () => enlarge(group));
    group.after(button);
  });

  const open = (id) => {
    const target = id ? document.getElementById(id) : null;
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    return target;
  };
  const [place, kept] = decodeURI(location.hash.slice(1)).split("?");
  new URLSearchParams(kept ?? "").forEach((value, name) => {
    if (name === "open") value.split(".").forEach((k) => { if (folds[k]) folds[k].open = true; });
    const table = name.startsWith("sort-") && document.getElementById(name.slice(5));
    if (table && table.tBodies) { const at = parseInt(value, 10); if (at < table.rows[table.rows.length - 1].cells.length) sort(table, at, value.endsWith("d")); }
    const input = name.startsWith("show-") && all("[data-filter]").find((one) => one.dataset.filter === name.slice(5));
    if (input) { input.value = value; filter(input); }
    state.set(name, value);
  });
  open(place)?.scrollIntoView();
  addEventListener("hashchange", () => open(location.hash.slice(1).split("?")[0])?.scrollIntoView());
})();
