"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const charts = [];

  function look() {
    const of = getComputedStyle(document.documentElement);
    const ink = of.getPropertyValue("--ink").trim(), line = of.getPropertyValue("--line").trim();
    const axis = { "gridcolor": line, "linecolor": line, "zerolinecolor": line };
    const changes = {
      "font.color": ink, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
      "hoverlabel.bgcolor": of.getPropertyValue("--wash").trim(), "hoverlabel.font.color": ink,
      "hoverlabel.bordercolor": line,
    };
    for (const name of ["xaxis", "yaxis"])
      for (const key in axis) changes[`${name}.${key}`] = axis[key];
    return changes;
  }

  function nested(changes, layout) {
    for (const path in changes) {
      const keys = path.split("."), last = keys.pop();
      let at = layout;
      for (const key of keys) at = at[key] ??= {};
      at[last] = changes[path];
    }
    return layout;
  }

  function draw(place, figure) {
    const narrow = place.clientWidth < 520;
    const layout = nested(look(), figure.layout);
    layout.font = { ...layout.font, family: "system-ui, sans-serif", size: narrow ? 11 : 13 };
    layout.dragmode = narrow ? false : "zoom";
    if (narrow) {
      layout.margin = { ...layout.margin, l: 8, r: 8 };
      for (const trace of figure.data) if (trace.type === "scatter" && trace.mode === "markers+text") trace.mode = "markers";
      for (const trace of figure.data) if (trace.type === "heatmap") trace.showscale = false;
      const names = figure.data.filter((trace) => layout.yaxis.type === "category" && trace.y).flatMap((trace) => trace.y);
      const long = [...new Set(names)].filter((name) => name.length > 18);
      if (long.length) {
        layout.yaxis.tickvals = [...new Set(names)];
        layout.yaxis.ticktext = layout.yaxis.tickvals.map((name) => (name.length > 18 ? name.slice(0, 17) + "\u2026" : name));
      }
    }
    const config = {
      responsive: true, displaylogo: false, plotlyServerURL: "", scrollZoom: false,
      modeBarButtonsToRemove: ["sendDataToCloud", "lasso2d", "select2d", "autoScale2d"], displayModeBar: narrow ? false : "hover",
    };
    Plotly.newPlot(place, figure.data, layout, config);
    charts.push(place);
  }

  function restyle(more) {
    for (const place of charts) Plotly.relayout(place, { ...look(), ...more });
  }

  if (typeof Plotly !== "undefined") {
    const waiting = new Map();
    for (const source of document.querySelectorAll("script[data-chart]"))
      waiting.set(document.getElementById(source.dataset.chart), source);
    const now = (place) => {
      const source = waiting.get(place);
      if (!source) return;
      waiting.delete(place);
      draw(place, JSON.parse(source.textContent));
    };
    const near = new IntersectionObserver((seen) => {
      for (const each of seen) if (each.isIntersecting) { near.unobserve(each.target); now(each.target); }
    }, { rootMargin: "600px" });
    for (const place of waiting.keys()) near.observe(place);
    dark.addEventListener("change", () => restyle());
    let opened = [];
    addEventListener("beforeprint", () => {
      for (const place of [...waiting.keys()]) now(place);
      const fits = (each) => each.querySelectorAll("tr").length <= 60; // longer tables and further albums would take pages
      opened = [...document.querySelectorAll("main details:not([open]):not(.album)")].filter(fits);
      for (const each of opened) each.open = true;
      restyle({ width: 660 }); // fits A4 and Letter between their margins
    });
    matchMedia("print").addEventListener("change", () => restyle());
    addEventListener("afterprint", () => {
      for (const each of opened) each.open = false;
      restyle({ width: null, autosize: true });
    });
  }

  const value = (cell) => {
    const text = cell.textContent.trim(), number = parseFloat(text.replaceAll(",", "").replace(/^[<+]/, ""));
    return Number.isNaN(number) ? text : number;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    if (body.rows.length < 2) continue;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.title = "Sort";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
        const rows = [...body.rows].map((row) => [value(row.cells[column]), row]);
        rows.sort(([a], [b]) => {
          if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
          return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  const large = document.getElementById("large");
  for (const button of document.querySelectorAll("button.picture"))
    button.addEventListener("click", () => {
      const [own] = button.getElementsByTagName("img"), [shown] = large.getElementsByTagName("img");
      shown.src = own.src;
      shown.alt = own.alt;
      large.showModal();
    });
  large.addEventListener("click", (event) => { if (event.target === large) large.close(); });
})();
